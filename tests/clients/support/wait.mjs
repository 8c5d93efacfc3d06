// Waiting for things that happen, never for time to pass. Every wait has a bound that only a failure reaches.
import assert from 'node:assert/strict';

/** Bound of every wait, in ms. Long, because the machine may be slow; reached only when something is broken. */
export const PATIENCE_MS = 15_000;

/** `promise`, or an error that names what was waited for. */
export function within(promise, what, ms = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** The arguments of the next `event` of an emitter or a socket.io client. */
export function once(emitter, event, ms = PATIENCE_MS) {
  let listener;
  const happened = new Promise((resolve) => {
    listener = (...args) => resolve(args);
    emitter.once(event, listener);
  });
  return within(happened, `event "${event}"`, ms).finally(() => emitter.off?.(event, listener));
}

/** The ack of `socket.emit(event, ...args)`. */
export function ask(socket, event, ...args) {
  return within(new Promise((resolve) => socket.emit(event, ...args, resolve)), `the ack of "${event}"`);
}

/** Everything `socket` gets under `event` from now on, with waits for a count or for one item. */
export function record(socket, event) {
  const items = [];
  let waiters = [];
  socket.on(event, (...args) => {
    items.push(args.length === 1 ? args[0] : args);
    waiters = waiters.filter((check) => !check());
  });
  const until = (holds, what, ms) =>
    within(
      new Promise((resolve) => {
        const check = () => holds() && (resolve(items), true);
        if (!check()) waiters.push(check);
      }),
      `${what} among "${event}"`,
      ms,
    ).catch((error) => {
      error.message += `; there are ${items.length}, the last ${JSON.stringify(items.at(-1))?.slice(0, 200)}`;
      throw error;
    });
  return {
    items,
    count: (n, ms) => until(() => items.length >= n, `${n} items`, ms),
    some: (test, ms) => until(() => items.some(test), `the awaited item`, ms),
  };
}

/** Repeats `check` (an assertion) until it holds, for things that only a look can tell, such as a gauge. */
export async function eventually(check, ms = PATIENCE_MS) {
  const end = performance.now() + ms;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (performance.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** For tests whose subject is time itself: the passing of `ms`. */
export const time = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Asserts that `value` has at least the members of `expected`, compared deeply. */
export function assertHas(value, expected) {
  const picked = Object.fromEntries(Object.keys(expected).map((key) => [key, value?.[key]]));
  assert.deepEqual(picked, expected, `in ${JSON.stringify(value)}`);
}
