# The second build route, for machines without CMake (see scripts/install.js). Same targets and flags as CMakeLists.txt.
{
  'variables': {
    'nvcc%': '<!(node scripts/cuda.js nvcc)',
    'version%': '<!(node -p "require(\'./package.json\').version")',
    'common_flags': ['-O3', '-ffp-contract=off', '-fno-math-errno', '-fno-trapping-math', '-fvisibility=hidden', '-Wall', '-Wextra'],
    'flags_avx2': ['-mavx2', '-mfma', '-mf16c'],
    'flags_avx512': ['-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq', '-mavx512vnni', '-mfma', '-mf16c'],
    'flags_neon': ['-march=armv8.2-a+dotprod'],
    'isa_definitions': [],
    'isa_targets': ['kernels_reference', 'kernels_portable'],
    'conditions': [
      ['target_arch=="x64"', {
        'isa_definitions': ['PTQ4VM_HAVE_PORTABLE=1', 'PTQ4VM_HAVE_AVX2=1', 'PTQ4VM_HAVE_AVX512=1'],
        'isa_targets': ['kernels_avx2', 'kernels_avx512'],
      }],
      ['target_arch=="arm64"', {
        'isa_definitions': ['PTQ4VM_HAVE_PORTABLE=1', 'PTQ4VM_HAVE_NEON=1'],
        'isa_targets': ['kernels_neon'],
      }],
    ],
  },

  'target_defaults': {
    'include_dirs': ['native/include', 'native'],
    'cflags': ['<@(common_flags)'],
    'cflags_cc!': ['-fno-exceptions', '-fno-rtti', '-std=gnu++17', '-std=gnu++20'],
    'cflags_cc': ['-std=c++17'],
    'xcode_settings': {
      'GCC_OPTIMIZATION_LEVEL': '3',
      'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
      'GCC_ENABLE_CPP_RTTI': 'YES',
      'GCC_SYMBOLS_PRIVATE_EXTERN': 'YES',
      'CLANG_CXX_LANGUAGE_STANDARD': 'c++17',
      'MACOSX_DEPLOYMENT_TARGET': '11.0',
      'OTHER_CPLUSPLUSFLAGS': ['-ffp-contract=off', '-fno-math-errno', '-fno-trapping-math', '-Wall', '-Wextra'],
    },
    'msvs_settings': {
      'VCCLCompilerTool': { 'ExceptionHandling': 1, 'FloatingPointModel': 0, 'AdditionalOptions': ['/std:c++17', '/utf-8'] },
    },
    'conditions': [['OS=="win"', { 'defines': ['NOMINMAX', '_CRT_SECURE_NO_WARNINGS'] }]],
  },

  'targets': [
    # ---- CPU kernels: every file of native/cpu once per instruction set.
    {
      'target_name': 'kernels_portable',
      'type': 'static_library',
      'sources': ['<!@(node scripts/sources.js kernels)'],
      'include_dirs': ['native/cpu'],
      'defines': ['PTQ4VM_ISA=portable', 'PTQ4VM_ISA_PORTABLE=1'],
    },
    {
      'target_name': 'kernels_reference',
      'type': 'static_library',
      'sources': ['<!@(node scripts/sources.js reference)'],
      'include_dirs': ['native/cpu'],
      'defines': ['PTQ4VM_ISA=reference'],
    },

    # ---- Platform, and the choice between the instruction sets.
    {
      'target_name': 'platform',
      'type': 'static_library',
      'sources': ['<!@(node scripts/sources.js platform)'],
      'defines': ['<@(isa_definitions)', 'PTQ4VM_VERSION="<(version)"'],
      'configurations': {
        'Release': { 'defines': ['PTQ4VM_BUILD_TYPE="Release"'] },
        'Debug': { 'defines': ['PTQ4VM_BUILD_TYPE="Debug"'] },
      },
    },

    # ---- Engine and bindings: the addon itself. One target, so that archives follow the objects that need them.
    {
      'target_name': 'ptq4vm',
      'sources': ['<!@(node scripts/sources.js bindings)', '<!@(node scripts/sources.js engine)'],
      'include_dirs': ['<!(node -p "require(\'node-addon-api\').include_dir")'],
      'defines': ['NAPI_VERSION=8', 'NODE_ADDON_API_CPP_EXCEPTIONS', 'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS'],
      # platform first: it refers to the kernels. The baseline comes before the stronger sets, as CMakeLists.txt explains.
      'dependencies': ['platform', 'kernels_reference', 'kernels_portable', '<@(isa_targets)'],
      'conditions': [
        ['OS=="linux"', {
          'ldflags': [
            '-static-libstdc++', '-static-libgcc', '-Wl,--exclude-libs,ALL', '-Wl,-z,now', '-Wl,-z,nodelete',
            '-Wl,--version-script=<(module_root_dir)/native/platform/exports.map',
          ],
          'libraries': ['-lpthread'],
        }],
        ['nvcc==""', {
          'sources': ['native/cuda/device_stub.cpp'],
        }, {
          'sources': ['<!@(node scripts/sources.js cuda)'],
          'library_dirs': ['<!(node scripts/cuda.js libraries)'],
          'variables': { 'gencode': ['<!@(node scripts/cuda.js gencode)'] },
          'rules': [{
            'rule_name': 'cuda',
            'extension': 'cu',
            'message': 'Compiling CUDA file <(RULE_INPUT_PATH)',
            'process_outputs_as_sources': 1,
            'conditions': [
              ['OS=="win"', {
                'outputs': ['<(INTERMEDIATE_DIR)/<(RULE_INPUT_ROOT).obj'],
                'action': ['<(nvcc)', '-c', '-O3', '-std=c++17', '--fmad=false', '-cudart=static', '<@(gencode)',
                           '-Inative/include', '-Inative', '-o', '<@(_outputs)', '<(RULE_INPUT_PATH)'],
              }, {
                'outputs': ['<(INTERMEDIATE_DIR)/<(RULE_INPUT_ROOT).o'],
                'action': ['<(nvcc)', '-c', '-O3', '-std=c++17', '--fmad=false', '-cudart=static', '<@(gencode)',
                           '-Inative/include', '-Inative',
                           '-Xcompiler', '-fPIC,-fvisibility=hidden,-Wall,-Wextra,-ffp-contract=off,-fno-math-errno,-fno-trapping-math',
                           '-o', '<@(_outputs)', '<(RULE_INPUT_PATH)'],
              }],
            ],
          }],
          'conditions': [
            ['OS=="win"', { 'libraries': ['cudart_static.lib'] }, { 'libraries': ['-lcudart_static', '-ldl', '-lrt', '-lpthread'] }],
          ],
        }],
      ],
    },
  ],

  'conditions': [
    ['target_arch=="x64"', {
      'targets': [
        {
          'target_name': 'kernels_avx2',
          'type': 'static_library',
          'sources': ['<!@(node scripts/sources.js kernels)'],
          'include_dirs': ['native/cpu'],
          'defines': ['PTQ4VM_ISA=avx2', 'PTQ4VM_ISA_AVX2=1'],
          'cflags': ['<@(flags_avx2)'],
          'xcode_settings': { 'OTHER_CPLUSPLUSFLAGS': ['<@(flags_avx2)'] },
          'msvs_settings': { 'VCCLCompilerTool': { 'AdditionalOptions': ['/arch:AVX2'] } },
        },
        {
          'target_name': 'kernels_avx512',
          'type': 'static_library',
          'sources': ['<!@(node scripts/sources.js kernels)'],
          'include_dirs': ['native/cpu'],
          'defines': ['PTQ4VM_ISA=avx512', 'PTQ4VM_ISA_AVX512=1'],
          'cflags': ['<@(flags_avx512)'],
          'xcode_settings': { 'OTHER_CPLUSPLUSFLAGS': ['<@(flags_avx512)'] },
          'msvs_settings': { 'VCCLCompilerTool': { 'AdditionalOptions': ['/arch:AVX512'] } },
        },
      ],
    }],
    ['target_arch=="arm64"', {
      'targets': [
        {
          'target_name': 'kernels_neon',
          'type': 'static_library',
          'sources': ['<!@(node scripts/sources.js kernels)'],
          'include_dirs': ['native/cpu'],
          'defines': ['PTQ4VM_ISA=neon', 'PTQ4VM_ISA_NEON=1'],
          'cflags': ['<@(flags_neon)'],
          'xcode_settings': { 'OTHER_CPLUSPLUSFLAGS': ['<@(flags_neon)'] },
        },
      ],
    }],
  ],
}
