import { expect } from 'chai';
import { decodeImage, loadSharp, type RawImage } from '../../lib/data/images.js';
import { imagenetPreprocess, parsePreprocess, type Preprocess } from '../../lib/data/preprocess.js';
import { jpeg, noise, plain, png, put, type Rgb, random, rejection, rgb, temporaryFolder } from './support.js';

/** Bytes [3, H, W] as `decodeImage` with mean 0 and std 1 gives them. */
async function bytes(source: Parameters<typeof decodeImage>[0], preprocess: Preprocess): Promise<number[]> {
  return Array.from(await decodeImage(source, preprocess), (v) => v * 255).map((v) => {
    expect(Math.abs(v - Math.round(v))).to.be.below(1e-3);
    return Math.round(v);
  });
}

function planar({ data, width, height }: Rgb): number[] {
  return [0, 1, 2].flatMap((c) => Array.from({ length: width * height }, (_, i) => data[3 * i + c]!));
}

describe('data: one picture', () => {
  const dir = temporaryFolder();

  it('keeps every pixel of a picture that has the size already (PNG, raw, file, odd sizes)', async () => {
    const picture = noise(7, 5);
    const want = planar(picture);
    const file = put(dir, 'ä picture.png', await png(picture));
    expect(await bytes(picture, plain([5, 7]))).to.deep.equal(want);
    expect(await bytes(await png(picture), plain([5, 7]))).to.deep.equal(want);
    expect(await bytes(file, plain([5, 7]))).to.deep.equal(want);
  });

  it('normalises as torchvision does, every step in float32', async () => {
    const picture = noise(4, 4, 2);
    const mean = [0.485, 0.456, 0.406] as const;
    const std = [0.229, 0.224, 0.225] as const;
    const got = await decodeImage(picture, { size: 4, mean, std });
    const f = Math.fround;
    const want = planar(picture).map((v, i) => f(f(f(v / 255) - f(mean[Math.floor(i / 16)]!)) / f(std[Math.floor(i / 16)]!)));
    expect(Array.from(got)).to.deep.equal(want);
  });

  it('crops the centre with the rounding of Python (half to even)', async () => {
    // resize = the shorter side: nothing is resampled, so the crop's place can be read off the pixels.
    for (const [width, left] of [[10, 3], [9, 2], [11, 4], [6, 1], [7, 2]] as const) {
      const picture = rgb(width, 6, (x, y) => [x, y, 0]);
      const got = await bytes(picture, plain(4, { resize: 6 }));
      expect(got.slice(0, 4), `width ${width}`).to.deep.equal([left, left + 1, left + 2, left + 3]);
      expect([got[16], got[20], got[24], got[28]]).to.deep.equal([1, 2, 3, 4]);
    }
  });

  it('pads with black where the picture is smaller than the crop', async () => {
    const got = await bytes(rgb(4, 2, () => [9, 9, 9]), plain([2, 6], { resize: 2 }));
    expect(got.slice(0, 12)).to.deep.equal([0, 9, 9, 9, 9, 0, 0, 9, 9, 9, 9, 0]);
  });

  for (const interpolation of ['bicubic', 'bilinear'] as const) {
    it(`resizes ${interpolation} with antialiasing, close to PIL's definition`, async () => {
      const picture = smooth(100, 75);
      const got = await bytes(picture, plain([32, 48], { interpolation }));
      const error = (kernel: Kernel): number => {
        const want = pilResize(picture, 48, 32, kernel);
        return got.reduce((sum, v, i) => sum + Math.abs(v - want[i]!), 0) / got.length;
      };
      const own = error(KERNELS[interpolation]);
      const other = error(KERNELS[interpolation === 'bicubic' ? 'bilinear' : 'bicubic']);
      expect(own, 'levels of 255').to.be.below(1.2);
      expect(own).to.be.below(other);
    });
  }

  it('resizes the shorter side, then crops: a wide picture keeps its proportions', async () => {
    // Left third red, middle green, right blue: the centre crop of a 3:1 picture is all green.
    const picture = rgb(300, 100, (x) => (x < 100 ? [255, 0, 0] : x < 200 ? [0, 255, 0] : [0, 0, 255]));
    const got = await bytes(picture, plain(32, { resize: 40 }));
    expect(got.slice(32 * 32, 2 * 32 * 32).every((v) => v === 255)).to.equal(true);
    const straight = await bytes(picture, plain(32));
    expect(straight[0], 'without resize nothing is cropped').to.equal(255);
  });

  it('handles extreme proportions quickly', async function () {
    this.timeout(5000);
    const got = await bytes(rgb(10_000, 1, () => [7, 7, 7]), plain(16, { resize: 32 }));
    expect(new Set(got)).to.deep.equal(new Set([7]));
  });

  it('turns a picture as its EXIF orientation says, all eight', async () => {
    const sharp = await loadSharp();
    const [w, h] = [3, 2];
    const stored = noise(w, h, 3);
    const at = (x: number, y: number): number[] => Array.from(stored.data.subarray((y * w + x) * 3, (y * w + x) * 3 + 3));
    const displayed: ((x: number, y: number) => number[])[] = [
      (x, y) => at(x, y), (x, y) => at(w - 1 - x, y), (x, y) => at(w - 1 - x, h - 1 - y), (x, y) => at(x, h - 1 - y),
      (x, y) => at(y, x), (x, y) => at(y, h - 1 - x), (x, y) => at(w - 1 - y, h - 1 - x), (x, y) => at(w - 1 - y, x),
    ];
    for (let orientation = 1; orientation <= 8; orientation++) {
      const file = await sharp(stored.data, { raw: { width: w, height: h, channels: 3 } }).withMetadata({ orientation }).png().toBuffer();
      const size: [number, number] = orientation > 4 ? [w, h] : [h, w];
      const want = rgb(size[1], size[0], (x, y) => displayed[orientation - 1]!(x, y) as [number, number, number]);
      expect(await bytes(file, plain(size)), `orientation ${orientation}`).to.deep.equal(planar(want));
    }
  });

  it('makes RGB of grey, alpha, 16 bits, palette and CMYK', async () => {
    const sharp = await loadSharp();
    const grey: RawImage = { data: Uint8Array.of(0, 10, 200, 255), width: 2, height: 2, channels: 1 };
    const want = [0, 10, 200, 255];
    expect(await bytes(grey, plain(2))).to.deep.equal([...want, ...want, ...want]);
    expect(await bytes(await png(grey), plain(2))).to.deep.equal([...want, ...want, ...want]);
    const half: RawImage = { data: Uint8Array.of(100, 0, 100, 255), width: 2, height: 1, channels: 2 };
    expect(await bytes(half, plain([1, 2])), 'transparent shows black').to.deep.equal([0, 100, 0, 100, 0, 100]);
    const rgba: RawImage = { data: Uint8Array.of(200, 100, 50, 0, 200, 100, 50, 255), width: 2, height: 1, channels: 4 };
    expect(await bytes(await png(rgba), plain([1, 2]))).to.deep.equal([0, 200, 0, 100, 0, 50]);
    const deep = Uint16Array.of(0x1234, 0xabcd, 0xffff);
    const wide = await sharp(deep, { raw: { width: 1, height: 1, channels: 3 } }).toColourspace('rgb16').png().toBuffer();
    expect((await sharp(wide).metadata()).depth, 'the test file has 16 bits').to.equal('ushort');
    expect(await bytes(wide, plain(1))).to.deep.equal([0x12, 0xab, 0xff]);
    const few = rgb(4, 4, (x) => (x < 2 ? [255, 0, 0] : [0, 0, 255]));
    const palette = await sharp(few.data, { raw: { width: 4, height: 4, channels: 3 } }).png({ palette: true }).toBuffer();
    expect(await bytes(palette, plain(4))).to.deep.equal(planar(few));
    const red = await sharp(rgb(8, 8, () => [255, 0, 0]).data, { raw: { width: 8, height: 8, channels: 3 } }).toColourspace('cmyk').jpeg().toBuffer();
    expect((await sharp(red).metadata()).space).to.equal('cmyk');
    const cmyk = await bytes(red, plain(8));
    expect(cmyk[0]).to.be.above(200);
    expect(Math.max(...cmyk.slice(64))).to.be.below(60);
  });

  it('ignores the colour profile of an RGB picture, as the training code did', async () => {
    const sharp = await loadSharp();
    const picture = noise(4, 4, 5);
    const file = await sharp(picture.data, { raw: { width: 4, height: 4, channels: 3 } }).withIccProfile('p3').png().toBuffer();
    const { data: stored } = await sharp(file, { ignoreIcc: true }).raw().toBuffer({ resolveWithObject: true });
    expect(Array.from(stored), 'the file stores other numbers than the sRGB ones').to.not.deep.equal(Array.from(picture.data));
    expect(await bytes(file, plain(4))).to.deep.equal(planar({ ...picture, data: new Uint8Array(stored) }));
  });

  it('shows a changed file, not a cached one', async () => {
    const file = put(dir, 'changing.png', await png(rgb(2, 2, () => [1, 1, 1])));
    expect((await bytes(file, plain(2)))[0]).to.equal(1);
    put(dir, 'changing.png', await png(rgb(2, 2, () => [2, 2, 2])));
    expect((await bytes(file, plain(2)))[0]).to.equal(2);
  });

  describe('refuses, naming file and reason:', () => {
    const cases: [string, () => Promise<Uint8Array> | Uint8Array, RegExp][] = [
      ['an empty file', () => new Uint8Array(0), /empty/],
      ['text', () => Buffer.from('no picture at all'), /not an image.*plain text/],
      ['a web page', () => Buffer.from('<!DOCTYPE html><html></html>'), /HTML page/],
      ['an LFS pointer', () => Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0\n'), /Git LFS pointer/],
      ['an SVG drawing', () => Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>'), /svg is not supported/],
      ['a JPEG cut short', async () => (await jpeg(noise(64, 64))).subarray(0, 1500), /truncated/],
      ['a JPEG header alone', async () => (await jpeg(noise(64, 64))).subarray(0, 100), /truncated|corrupt/],
      ['a PNG cut short', async () => (await png(noise(64, 64))).subarray(0, 3000), /.+/],
      ['a PNG of zeros after its signature', async () => Buffer.concat([(await png(noise(4, 4))).subarray(0, 8), Buffer.alloc(200)]), /.+/],
      ['a decompression bomb', async () => {
        const sharp = await loadSharp();
        return sharp(Buffer.alloc(16_000 * 12_000), { raw: { width: 16_000, height: 12_000, channels: 1 } }).png().toBuffer();
      }, /more than 178956970 pixels/],
    ];
    for (const [name, make, reason] of cases) {
      it(name, async function () {
        this.timeout(20_000);
        const content = await make();
        const file = put(dir, 'bad.jpg', content);
        for (const source of [file, content]) {
          const error = await rejection(decodeImage(source, plain(8)));
          expect(error.name).to.equal('Ptq4vmError');
          expect(error.code).to.equal('ERR_DATA');
          expect(error.message).to.match(reason);
          expect(error.message).to.include(source === file ? file : 'the given image');
          expect(error.message).to.not.include('\n');
        }
      });
    }

    it('flipped bytes: an error or a picture, never a crash', async function () {
      this.timeout(20_000);
      const seed = Date.now() % 1e9;
      console.log(`      seed ${seed}`);
      const next = random(seed);
      const whole = [await jpeg(noise(32, 32)), await png(noise(32, 32))];
      for (let i = 0; i < 120; i++) {
        const damaged = Buffer.from(whole[i % 2]!);
        for (let k = 0; k < 1 + (i % 7); k++) damaged[Math.floor(next() * damaged.length)] = Math.floor(next() * 256);
        try {
          expect(await decodeImage(damaged, plain(8))).to.have.length(192);
        } catch (error) {
          expect((error as { code: string }).code, `round ${i}: ${(error as Error).message}`).to.equal('ERR_DATA');
        }
      }
    });

    it('a missing file, a folder, a device', async () => {
      const missing = await rejection(decodeImage(`${dir}/nowhere.jpg`, plain(8)));
      expect(missing.code).to.equal('ERR_FILE_NOT_FOUND');
      expect(missing.message).to.include('nowhere.jpg');
      expect((await rejection(decodeImage(dir, plain(8)))).message).to.match(/is a folder/);
      if (process.platform !== 'win32') expect((await rejection(decodeImage('/dev/zero', plain(8)))).message).to.match(/not a regular file/);
    });

    it('wrong arguments', async () => {
      expect(await rejection(decodeImage(7 as never, plain(8)))).to.be.instanceOf(TypeError);
      expect(await rejection(decodeImage({ ...noise(2, 2), width: 3 }, plain(8)))).to.be.instanceOf(RangeError);
      expect(await rejection(decodeImage({ ...noise(2, 2), channels: 5 as never }, plain(8)))).to.be.instanceOf(RangeError);
      expect(await rejection(decodeImage({ ...noise(2, 2), data: 'x' as never }, plain(8)))).to.be.instanceOf(TypeError);
      expect(await rejection(decodeImage(noise(2, 2), { ...plain(8), size: 0 }))).to.be.instanceOf(RangeError);
      expect(await rejection(decodeImage(noise(2, 2), undefined as never))).to.be.instanceOf(TypeError);
    });
  });
});

describe('data: preprocessing of a model', () => {
  it('has the official evaluation as its ImageNet default', () => {
    expect(imagenetPreprocess(224)).to.include({ size: 224, resize: 256, interpolation: 'bicubic' });
    expect(imagenetPreprocess(384).resize).to.equal(438);
    expect(imagenetPreprocess([224, 320])).to.not.have.property('resize');
  });

  it('is checked key by key', () => {
    const good = { size: 64, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25] };
    expect(parsePreprocess(good, 'config.json')).to.deep.equal(good);
    expect(parsePreprocess({ ...good, size: [3, 4], resize: 9 }, 'x')).to.deep.include({ size: [3, 4], resize: 9 });
    const bad: [string, unknown][] = [
      ['size', undefined], ['size', 0], ['size', 2.5], ['size', [1, 2, 3]], ['size', 1e9], ['resize', -1], ['resize', '256'],
      ['interpolation', 'lanczos'], ['mean', [1, 2]], ['mean', [1, 2, Number.NaN]], ['std', [1, 0, 1]], ['std', 'x'], ['crop', 1],
    ];
    for (const [key, value] of bad) {
      const parse = (): unknown => parsePreprocess({ ...good, [key]: value }, 'config.json');
      expect(parse, `${key} ${String(value)}`).to.throw(new RegExp(`preprocess\\.${key}.*config\\.json`)).with.property('code', 'ERR_CONFIG');
    }
    expect(() => parsePreprocess([], 'x')).to.throw(/preprocess/);
  });
});

type Kernel = { readonly support: number; weight(x: number): number };
const KERNELS: Record<'bicubic' | 'bilinear', Kernel> = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    weight: (v) => {
      const x = Math.abs(v);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
    },
  },
};

function smooth(width: number, height: number): Rgb {
  const byte = (v: number): number => Math.round(127.5 + 127 * Math.sin(v));
  return rgb(width, height, (x, y) => [byte(x / 3 + y / 7), byte((x * y) / 300), byte(y / 2.5)]);
}

/** PIL's resampling (Resample.c) in double: separable, the kernel stretched by the ratio when shrinking. Planar bytes. */
function pilResize({ data, width, height }: Rgb, toWidth: number, toHeight: number, kernel: Kernel): number[] {
  const line = (from: number, to: number): { first: number; weights: number[] }[] =>
    Array.from({ length: to }, (_, i) => {
      const scale = Math.max(1, from / to);
      const center = ((i + 0.5) * from) / to;
      const first = Math.max(0, Math.floor(center - kernel.support * scale + 0.5));
      const end = Math.min(from, Math.floor(center + kernel.support * scale + 0.5));
      const raw = Array.from({ length: end - first }, (_, k) => kernel.weight((first + k - center + 0.5) / scale));
      const sum = raw.reduce((a, b) => a + b, 0);
      return { first, weights: raw.map((v) => v / sum) };
    });
  const columns = line(width, toWidth);
  const rows = line(height, toHeight);
  return [0, 1, 2].flatMap((c) =>
    rows.flatMap((r) =>
      columns.map((col) => {
        let sum = 0;
        r.weights.forEach((wy, ky) => col.weights.forEach((wx, kx) => {
          sum += wy * wx * data[((r.first + ky) * width + col.first + kx) * 3 + c]!;
        }));
        return Math.min(255, Math.max(0, Math.round(sum)));
      }),
    ),
  );
}
