// Chance that can be had again: everything follows from a seed.

/** A source of numbers in [0, 1), by mulberry32, and what a story asks of it. `salt` makes those of one seed differ. */
export function chance(seed, salt) {
  let state = seed >>> 0;
  for (const letter of String(salt)) state = (Math.imul(state, 31) + letter.charCodeAt(0)) >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    next,
    /** True so often. */
    happens: (share) => next() < share,
    /** An integer of `from` to `to`, both included. */
    between: (from, to) => from + Math.floor(next() * (to - from + 1)),
    /** One of a list, `undefined` of an empty one. */
    pick: (list) => list[Math.floor(next() * list.length)],
    /** A key of `{ key: weight }`. */
    weighted(weights) {
      const entries = Object.entries(weights);
      let left = next() * entries.reduce((sum, [, weight]) => sum + weight, 0);
      return entries.find(([, weight]) => (left -= weight) < 0)?.[0] ?? entries.at(-1)[0];
    },
  };
}
