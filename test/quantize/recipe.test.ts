/** What a quantization run may be asked for, and what its recipe then says. */
import { expect } from 'chai';
import { makeRecipe, METHODS, type RecipeOptions } from '../../lib/ptq/recipe.js';
import { smoothingScale } from '../../lib/ptq/smooth.js';

const make = (options: object) => makeRecipe({ weights: 8, activations: 8, ...options } as RecipeOptions);

describe('recipe', () => {
  const WRONG: readonly [string, object, typeof TypeError | typeof RangeError, string][] = [
    ...[0, 2, 3, 5, 7, 16, -8, 8.5, '8', null, Number.NaN].flatMap((bits): (typeof WRONG)[number][] => [
      [`weights ${String(bits)}`, { weights: bits }, RangeError, 'Expected 4, 6 or 8 for weights but received '],
      [`activations ${String(bits)}`, { activations: bits }, RangeError, 'Expected 4, 6 or 8 for activations but received '],
    ]),
    ['no bits', { weights: undefined }, RangeError, 'Expected 4, 6 or 8 for weights but received undefined'],
    ...['gptq', '', 'PTQ4VM', 'minmax ', 'constructor', 7, null].map((method): (typeof WRONG)[number] => [
      `method ${String(method)}`, { method }, RangeError, `Expected one of ${METHODS.join(', ')} for method but received `,
    ]),
    ...[-0.1, 1.1, Number.NaN, Number.POSITIVE_INFINITY, '0.5', null].map((alpha): (typeof WRONG)[number] => [
      `alpha ${String(alpha)}`, { alpha }, RangeError, 'Expected a number from 0 to 1 for alpha but received ',
    ]),
    ...[0, -1, 1.5, Number.NaN, '16', null].map((samples): (typeof WRONG)[number] => [
      `samples ${String(samples)}`, { samples }, RangeError, 'Expected a positive integer for samples but received ',
    ]),
    ...[-1, 0.5, 'x', null].map((seed): (typeof WRONG)[number] => [
      `seed ${String(seed)}`, { seed }, RangeError, 'Expected a non-negative integer for seed but received ',
    ]),
    ...['on', 1, null].map((grid): (typeof WRONG)[number] => [`grid ${String(grid)}`, { grid }, TypeError, 'Expected true or false for grid but received ']),
    ['an unknown option', { bits: 8 }, RangeError, "Unknown quantization option 'bits'"],
    ['a misspelt option', { Alpha: 0.5 }, RangeError, "Unknown quantization option 'Alpha'"],
    ['an option named __proto__', JSON.parse('{"__proto__": {"alpha": 1}}'), RangeError, "Unknown quantization option '__proto__'"],
  ];
  for (const [what, options, kind, message] of WRONG) {
    it(`refused: ${what}`, () => {
      const given = Object.hasOwn(options, '__proto__') ? options : { weights: 8, activations: 8, ...options };
      expect(() => makeRecipe(given as RecipeOptions)).to.throw(kind).with.property('message').that.satisfies((m: string) => m.startsWith(message));
    });
  }
  for (const bad of [null, undefined, 8, 'ptq4vm']) {
    it(`refused: ${String(bad)} for options`, () => {
      expect(() => makeRecipe(bad as never)).to.throw(TypeError, /^Expected an object for options but received/);
    });
  }

  it('defaults are those of the documentation', () => {
    expect(make({})).to.deep.equal({ method: 'ptq4vm', weights: 8, activations: 8, perToken: true, smooth: true, alpha: 0.5, grid: true, samples: 256, seed: 0 });
  });

  it('each method adds to the one before; ptq4vm is pts+smooth for now', () => {
    const parts = (method: string) => {
      const { perToken, smooth, grid } = make({ method });
      return { perToken, smooth, grid };
    };
    expect(parts('minmax')).to.deep.equal({ perToken: false, smooth: false, grid: false });
    expect(parts('smoothquant')).to.deep.equal({ perToken: false, smooth: true, grid: false });
    expect(parts('pts')).to.deep.equal({ perToken: true, smooth: false, grid: true });
    expect(parts('pts+smooth')).to.deep.equal({ perToken: true, smooth: true, grid: true });
    expect({ ...make({ method: 'ptq4vm' }), method: '' }).to.deep.equal({ ...make({ method: 'pts+smooth' }), method: '' });
  });

  it('grid overrides the method’s choice and nothing else', () => {
    for (const method of METHODS) {
      for (const grid of [true, false]) expect(make({ method, grid })).to.deep.equal({ ...make({ method }), grid });
    }
  });

  it('the edges of each range are inside', () => {
    for (const options of [{ alpha: 0 }, { alpha: 1 }, { samples: 1 }, { seed: 0 }, { seed: 2 ** 32 }]) expect(make(options)).to.include(options);
  });
});

describe('smoothing scales', () => {
  const scale = (absMax: number, weight: number, alpha: number) => smoothingScale(Float32Array.of(absMax), Float32Array.of(weight, -weight / 2), alpha)[0];

  it('alpha 1 moves all of the range to the weights, alpha 0 none of it', () => {
    expect(scale(8, 2, 1)).to.equal(8);
    expect(scale(8, 2, 0)).to.equal(0.5);
    expect(scale(8, 2, 0.5)).to.be.closeTo(2, 1e-6);
  });

  it('dead channels: maxima are taken as at least 1e-3 and 1e-5, scales as at least 1e-5', () => {
    expect(scale(0, 0, 1)).to.equal(Math.fround(1e-3));
    expect(scale(0, 0, 0)).to.be.closeTo(1e5, 1);
    expect(scale(0, 1e30, 0)).to.equal(Math.fround(1e-5));
    for (const alpha of [0, 0.3, 0.65, 1]) expect(scale(0, 0, alpha)).to.satisfy((s: number) => s > 0 && Number.isFinite(s));
  });

  it('takes the largest |W| of each column', () => {
    // [3, 2]: columns (1, −4, 2) and (0.5, 0.25, −1)
    expect([...smoothingScale(Float32Array.of(4, 9), Float32Array.of(1, 0.5, -4, 0.25, 2, -1), 0)]).to.deep.equal([0.25, 1]);
  });
});
