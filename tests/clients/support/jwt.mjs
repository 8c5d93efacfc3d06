// Tokens, made by hand: good ones in every algorithm, and every kind of bad one.
import assert from 'node:assert/strict';
import { createHmac, createPublicKey, generateKeyPairSync, sign as signature } from 'node:crypto';

import { join, open } from './clients.mjs';
import { within } from './wait.mjs';

/** The HMAC key of the tests. */
export const SECRET = 'only-for-tests-0123456789abcdef-0123';

/** Settings of a service that takes tokens signed with `SECRET`. */
export const WITH_TOKENS = { AUTH_MODE: 'jwt', JWT_SECRET_KEY: SECRET };

/** Now and `seconds`, as claims count time. */
export const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;

export const base64url = (data) => Buffer.from(data).toString('base64url');

const encoded = (part) => base64url(typeof part === 'string' || Buffer.isBuffer(part) ? part : JSON.stringify(part));

/** A token of these parts as they are: header and payload objects or raw text, the signature bytes or base64url. */
export function assemble(header, payload, bytes) {
  return `${encoded(header)}.${encoded(payload)}.${typeof bytes === 'string' ? bytes : base64url(bytes)}`;
}

/** How each algorithm signs `data` with `key`: a secret, or a private `KeyObject`. */
const ALGORITHMS = {
  HS256: (data, key) => createHmac('sha256', key).update(data).digest(),
  HS384: (data, key) => createHmac('sha384', key).update(data).digest(),
  HS512: (data, key) => createHmac('sha512', key).update(data).digest(),
  RS256: (data, key) => signature('sha256', Buffer.from(data), key),
  ES256: (data, key) => signature('sha256', Buffer.from(data), { key, dsaEncoding: 'ieee-p1363' }),
  EdDSA: (data, key) => signature(null, Buffer.from(data), key),
};

/**
 * Signs a payload, an object or the raw text of one. `header` is laid over the usual header, or is its raw text, so
 * that a token may say another algorithm than the one it is signed with.
 */
export function sign(payload, { algorithm = 'HS256', key = SECRET, header = {} } = {}) {
  const whole = typeof header === 'string' ? header : { alg: algorithm, typ: 'JWT', ...header };
  const data = `${encoded(whole)}.${encoded(payload)}`;
  return `${data}.${base64url(ALGORITHMS[algorithm](data, key))}`;
}

/** The claims of a good token for `user`, good for an hour. A claim that is `undefined` is left out. */
export const claimsOf = (user, claims = {}) => ({ sub: user, exp: inSeconds(3600), ...claims });

/** A good token for `user`. */
export const tokenOf = (user, claims, how) => sign(claimsOf(user, claims), how);

/** A new key pair for one of the asymmetric algorithms, with its public half as PEM and as a member of a key set. */
export function keyPair(algorithm, kid) {
  const [kind, options] = {
    RS256: ['rsa', { modulusLength: 2048 }],
    ES256: ['ec', { namedCurve: 'P-256' }],
    EdDSA: ['ed25519', {}],
  }[algorithm];
  const { privateKey, publicKey } = generateKeyPairSync(kind, options);
  return {
    algorithm,
    kid,
    privateKey,
    pem: publicKey.export({ type: 'spki', format: 'pem' }),
    der: publicKey.export({ type: 'spki', format: 'der' }),
    jwk: { ...createPublicKey(privateKey).export({ format: 'jwk' }), kid, alg: algorithm, use: 'sig' },
    /** A good token for `user`, signed with this key. */
    token: (user, claims, header = {}) =>
      sign(claimsOf(user, claims), { algorithm, key: privateKey, header: kid ? { kid, ...header } : header }),
  };
}

/** A client of `user`, connected, with its `ready`. */
export const enter = (t, service, user, { claims, ...options } = {}) =>
  join(t, service.url, { auth: { token: tokenOf(user, claims) }, ...options });

/** Tries to connect, whatever comes of it: `{ socket }` or `{ socket, error }`. */
export async function entry(t, service, options) {
  const socket = open(t, service.url, options);
  const error = await within(
    new Promise((resolve) => {
      socket.once('connect_error', resolve);
      socket.once('connect', () => resolve());
    }),
    'the answer to a CONNECT',
  );
  return { socket, error };
}

/** Connects and expects to be refused with `code`, or with one of several; answers the error's `data`. */
export async function refusedEntry(t, service, options, code) {
  const { socket, error } = await entry(t, service, options);
  assert.ok(error, `let in instead of refused with ${code}`);
  assert.equal(error.message, 'unauthorized', `${error.message} ${JSON.stringify(error.data)}`);
  const codes = [code].flat();
  assert.ok(codes.includes(error.data?.code), `expected ${codes.join(' or ')}: ${JSON.stringify(error.data)}`);
  assert.ok(typeof error.data.message === 'string' && error.data.message.length > 0, 'an error has a message');
  socket.disconnect();
  return error.data;
}
