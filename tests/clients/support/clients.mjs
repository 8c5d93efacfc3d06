// Stock socket.io clients: three releases, three ways to be connected.
import { createRequire } from 'node:module';

import { once, within } from './wait.mjs';

const require = createRequire(import.meta.url);

export const RELEASES = {
  '4.0': require('client-4.0'),
  4.4: require('client-4.4'),
  4.8: require('client-4.8'),
};

export const TRANSPORTS = {
  polling: ['polling'],
  websocket: ['websocket'],
  upgrade: ['polling', 'websocket'],
};

/** A client that is closed when the test `t` ends. It connects by itself. */
export function open(t, url, { release = '4.8', transport = 'websocket', namespace = '/', ...options } = {}) {
  const socket = RELEASES[release].io(url + namespace, {
    transports: TRANSPORTS[transport],
    forceNew: true,
    reconnection: false,
    ...options,
  });
  t.after(() => socket.disconnect());
  return socket;
}

/** A client that is connected, upgraded if it is to be, and has its `ready` (as `socket.ready`). */
export async function join(t, url, options = {}) {
  const socket = open(t, url, options);
  const failed = new Promise((_, reject) => socket.once('connect_error', reject));
  const upgraded = options.transport === 'upgrade' && new Promise((done) => socket.io.engine.once('upgrade', done));
  const [[ready]] = await Promise.race([Promise.all([once(socket, 'ready'), once(socket, 'connect')]), failed]);
  if (upgraded) await within(upgraded, 'the upgrade to websocket');
  failed.catch(() => {});
  socket.ready = ready;
  return socket;
}
