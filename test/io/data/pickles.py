"""Writes pickles.json: one value pickled by CPython in every protocol. Needs Python 3 and NumPy; run in this folder."""
import argparse
import base64
import collections
import json
import pathlib
import pickle

import numpy as np

shared = ['s']
cyc = [1]
cyc.append(cyc)
dd = collections.defaultdict(list)
dd['k'].append(1)
value = {
    'none': None, 'true': True, 'false': False,
    'ints': [0, 1, 255, 256, 65535, 65536, -1, -128, -129, 2**31 - 1, -2**31, 2**31, -2**31 - 1, 2**53 - 1, -(2**53 - 1)],
    'big':[2**64, -2**64, 2**63-1, -2**63],
    'floats':[0.0, -1.5, 1e300, float('inf'), float('-inf')],
    'text': ['','a\nb',"q'\"",'\u00e9\u4e2d\U0001f600','\\u0041 back'],
    'bytes': [b'',b'\x00\xff\n'],
    'list':[1, [2, [3]]], 'tuple':[(), (1, ), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    'dict':{'a':1, 2: 'b',(1, 2): 3, None: 4},
    'set':{7}, 'frozen':frozenset([8]),
    'ordered':collections.OrderedDict([('x',1), ('y',2)]),
    'dd':dd,
    'shared':[shared, shared], 'cycle':cyc,
    'ns':argparse.Namespace(lr=0.1, sched='cosine'),
    'path':pathlib.PurePosixPath('/a/b'),
    'complex':1+2j,
}
value['bytearray'] = bytearray(b'xy')
value['np'] = [np.float32(1.5), np.int64(-7), np.float64(2.25), np.bool_(True)]
value['nparr'] = np.arange(6, dtype=np.float32).reshape(2, 3)
value['npT'] = np.asfortranarray(np.arange(6, dtype='>i2').reshape(2, 3))
with open('pickles.json', 'w') as file:
    json.dump([base64.b64encode(pickle.dumps(value, p)).decode() for p in range(6)], file, indent=1)
