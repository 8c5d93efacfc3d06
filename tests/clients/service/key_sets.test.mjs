// Promise: tokens of the Auth Service are checked with its public keys, through rotations and while it is away.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { AuthService, SILENCE } from '../support/auth_service.mjs';
import { join } from '../support/clients.mjs';
import { base64url, entry, keyPair, refusedEntry, sign, claimsOf, tokenOf } from '../support/jwt.mjs';
import { Rest, assertError, assertStatus } from '../support/rest.mjs';
import { startService } from '../support/server.mjs';
import { eventually } from '../support/wait.mjs';

const ALGORITHMS = ['RS256', 'ES256', 'EdDSA'];

const taken = async (t, service, token, user) =>
  assert.equal((await join(t, service.url, { auth: { token } })).ready.user_id, user);
const refused = (t, service, token, code = 'token_invalid') => refusedEntry(t, service, { auth: { token } }, code);

/** An Auth Service with these keys, and a chat service that fetches them. */
async function startWith(t, keys, settings = {}) {
  const auth = await AuthService.start(t);
  auth.keys = keys.map((pair) => pair.jwk);
  const service = await startService({
    AUTH_MODE: 'jwt',
    JWT_ALGORITHMS: ALGORITHMS.join(','),
    JWKS_URL: auth.jwksUrl,
    ...settings,
  });
  t.after(() => service.kill());
  return { auth, service };
}

describe('JWT_PUBLIC_KEY as PEM', () => {
  for (const algorithm of ALGORITHMS) {
    test(`serves ${algorithm}, and only its own key`, async (t) => {
      const pair = keyPair(algorithm);
      const service = await startService({ AUTH_MODE: 'jwt', JWT_ALGORITHMS: algorithm, JWT_PUBLIC_KEY: pair.pem });
      t.after(() => service.stop());
      await taken(t, service, pair.token('ada'), 'ada');
      await taken(t, service, pair.token('ada', {}, { kid: 'whatever' }), 'ada');
      assertStatus(await Rest.bearer(service, pair.token('ada')).get('/unread'), 200);
      await refused(t, service, keyPair(algorithm).token('ada'));
      await refused(t, service, tokenOf('ada'));
    });
  }

  test('starts in production without a shared secret', async (t) => {
    const pair = keyPair('ES256');
    const settings = { AUTH_MODE: 'jwt', JWT_ALGORITHMS: 'ES256', JWT_PUBLIC_KEY: pair.pem };
    const service = await startService({ ...settings, ENV: 'production', HOST: '127.0.0.1' });
    t.after(() => service.stop());
    await taken(t, service, pair.token('ada'), 'ada');
  });
});

describe('a key set', () => {
  const pairs = Object.fromEntries(ALGORITHMS.map((algorithm) => [algorithm, keyPair(algorithm, `key-${algorithm}`)]));
  const odd = keyPair('ES256', 'odd');
  const shared = 'a-secret-that-came-with-the-key-set';
  let auth;
  let service;
  before(async () => {
    auth = await AuthService.start();
    auth.keys = [
      { kty: 'future', kid: 'unknown-type', alg: 'XX1' },
      { kty: 'oct', kid: 'shared', k: base64url(shared), alg: 'HS256', use: 'sig' },
      { kty: 'RSA', kid: 'broken', n: '!!', e: 'AQAB', alg: 'RS256' },
      ...Object.values(pairs).map((pair) => pair.jwk),
      { ...odd.jwk, use: 'enc' },
    ];
    service = await startService({
      AUTH_MODE: 'jwt',
      JWT_ALGORITHMS: ALGORITHMS.join(','),
      JWKS_URL: auth.jwksUrl,
    });
  });
  after(async () => {
    await service.stop();
    await auth.down();
  });

  for (const algorithm of ALGORITHMS) {
    test(`serves ${algorithm}, beside keys that nobody can use`, async (t) => {
      await taken(t, service, pairs[algorithm].token('ada'), 'ada');
      assertStatus(await Rest.bearer(service, pairs[algorithm].token('ada')).get('/unread'), 200);
    });

    test(`takes the ${algorithm} key by its kid and not by trying`, async (t) => {
      const others = ALGORITHMS.filter((other) => other !== algorithm);
      for (const other of others) {
        await refused(t, service, pairs[algorithm].token('ada', {}, { kid: `key-${other}` }));
      }
      await refused(t, service, keyPair(algorithm, `key-${algorithm}`).token('ada'));
    });

    test(`binds the ${algorithm} key to its algorithm`, async (t) => {
      for (const other of ['none', 'HS256', ...ALGORITHMS.filter((other) => other !== algorithm)]) {
        await refused(t, service, pairs[algorithm].token('ada', {}, { alg: other }));
      }
    });
  }

  test('brings no shared secrets', async (t) => {
    const header = { kid: 'shared' };
    await refused(t, service, sign(claimsOf('admin'), { algorithm: 'HS256', key: shared, header }));
  });

  test('has keys for encryption that sign nothing', (t) => refused(t, service, odd.token('ada')));

  test('is fetched only once for all of this', () => {
    // Once for the keys, and at most once because of a kid that is in the set but of no use.
    assert.ok(auth.keyRequests >= 1 && auth.keyRequests <= 2, `fetched ${auth.keyRequests} times`);
    assert.deepEqual(auth.strays, []);
  });
});

describe('a rotation', () => {
  test('is noticed by the unknown kid, and the old key is gone', async (t) => {
    const [old, young] = [keyPair('ES256', 'old'), keyPair('ES256', 'young')];
    const { auth, service } = await startWith(t, [old]);
    await taken(t, service, old.token('ada'), 'ada');
    assert.equal(auth.keyRequests, 1);
    auth.keys = [young.jwk];
    await taken(t, service, old.token('ada'), 'ada');
    assert.equal(auth.keyRequests, 1, 'known keys are cached');
    await taken(t, service, young.token('bob'), 'bob');
    assert.equal(auth.keyRequests, 2);
    await refused(t, service, old.token('ada'));
  });

  test('makes one fetch, however many come with the new key at once', async (t) => {
    const [old, young] = [keyPair('EdDSA', 'old'), keyPair('EdDSA', 'young')];
    const { auth, service } = await startWith(t, [old]);
    await taken(t, service, old.token('ada'), 'ada');
    auth.keys = [old.jwk, young.jwk];
    const users = Array.from({ length: 30 }, (_, n) => `user-${n}`);
    await Promise.all(users.map((user) => taken(t, service, young.token(user), user)));
    assert.equal(auth.keyRequests, 2);
    await taken(t, service, old.token('ada'), 'ada');
  });

  test('is also noticed by a request over HTTP', async (t) => {
    const [old, young] = [keyPair('ES256', 'old'), keyPair('ES256', 'young')];
    const { auth, service } = await startWith(t, [old]);
    await taken(t, service, old.token('ada'), 'ada');
    auth.keys = [young.jwk];
    assertStatus(await Rest.bearer(service, young.token('ada')).get('/unread'), 200);
    assert.equal(auth.keyRequests, 2);
  });
});

test('unknown kids fetch the key set at most once a minute', async (t) => {
  const pair = keyPair('ES256', 'known');
  const { auth, service } = await startWith(t, [pair]);
  await taken(t, service, pair.token('ada'), 'ada');
  assert.equal(auth.keyRequests, 1);
  const rogue = keyPair('ES256');
  for (let n = 0; n < 10; n++) await refused(t, service, rogue.token('ada', {}, { kid: `unknown-${n}` }));
  const many = Array.from({ length: 30 }, (_, n) => rogue.token('ada', {}, { kid: `at-once-${n}` }));
  await Promise.all(many.map((token) => refused(t, service, token)));
  const rest = Rest.bearer(service, rogue.token('ada', {}, { kid: 'over-http' }));
  assertError(await rest.get('/unread'), 401, 'token_invalid');
  assert.ok(auth.keyRequests <= 2, `fetched ${auth.keyRequests} times`);
  await taken(t, service, pair.token('ada'), 'ada');
});

describe('the keys are kept when', () => {
  const failures = [
    ['the Auth Service is away', (auth) => auth.down()],
    ['it answers 500', (auth) => (auth.serve = () => ({ status: 500, body: 'sorry' }))],
    ['it answers 404', (auth) => (auth.serve = () => ({ status: 404, body: {} }))],
    ['it answers no JSON', (auth) => (auth.serve = () => ({ status: 200, body: '<html></html>' }))],
    ['it answers an empty body', (auth) => (auth.serve = () => ({ status: 200, body: '' }))],
    ['its set is empty', (auth) => (auth.keys = [])],
    ['its set is no list', (auth) => (auth.serve = () => ({ status: 200, body: { keys: 'none' } }))],
    ['its set has no key of use', (auth) => (auth.keys = [{ kty: 'oct', k: 'AAAA', kid: 'known' }])],
    [
      'its answer is endless',
      (auth) => (auth.serve = () => ({ status: 200, body: `{"keys":[${' '.repeat(8 * 1024 * 1024)}]}` })),
    ],
    ['it does not answer', (auth) => (auth.serve = () => SILENCE)],
  ];
  for (const [name, fail] of failures) {
    test(name, async (t) => {
      const [pair, other] = [keyPair('ES256', 'known'), keyPair('ES256', 'unknown')];
      const { auth, service } = await startWith(t, [pair]);
      await taken(t, service, pair.token('ada'), 'ada');
      await fail(auth);
      // The unknown kid makes the service try, in vain.
      await refused(t, service, other.token('ada'), ['token_invalid', 'unauthorized']);
      await taken(t, service, pair.token('ada'), 'ada');
      assert.equal((await service.metrics()).panics(), 0);
    });
  }

  test('a hanging fetch does not hold up those whose key is known', async (t) => {
    const [pair, other] = [keyPair('ES256', 'known'), keyPair('ES256', 'unknown')];
    const { auth, service } = await startWith(t, [pair]);
    await taken(t, service, pair.token('ada'), 'ada');
    let release;
    const asked = new Promise((resolve) => {
      auth.serve = () => {
        resolve();
        return new Promise(
          (answer) => (release = () => answer({ status: 200, body: { keys: [pair.jwk, other.jwk] } })),
        );
      };
    });
    const waits = entry(t, service, { auth: { token: other.token('bob') } });
    await asked;
    await taken(t, service, pair.token('ada'), 'ada');
    release();
    assert.equal((await waits).error, undefined);
  });
});

test('a service that starts before the Auth Service works as soon as it can have the keys', async (t) => {
  const pair = keyPair('ES256', 'late');
  const auth = await AuthService.start(t);
  const { jwksUrl } = auth;
  auth.keys = [pair.jwk];
  await auth.down();
  const service = await startService({ AUTH_MODE: 'jwt', JWT_ALGORITHMS: 'ES256', JWKS_URL: jwksUrl });
  t.after(() => service.stop());
  await refusedEntry(t, service, { auth: { token: pair.token('ada') } }, ['token_invalid', 'unauthorized']);
  await auth.up();
  // A failed fetch may count as the one of its minute.
  await eventually(async () => {
    const { error, socket } = await entry(t, service, { auth: { token: pair.token('ada') } });
    socket.disconnect();
    assert.equal(error, undefined);
  }, 90_000);
});
