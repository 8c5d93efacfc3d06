// Promise: who somebody is comes from their token and from nothing else, and a refusal says why.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';

import { RELEASES, TRANSPORTS, join, open } from '../support/clients.mjs';
import {
  SECRET,
  WITH_TOKENS,
  claimsOf,
  enter,
  entry,
  inSeconds,
  keyPair,
  refusedEntry,
  sign,
  tokenOf,
} from '../support/jwt.mjs';
import { openEngine } from '../support/raw.mjs';
import { Rest, assertError } from '../support/rest.mjs';
import { freePort, startService } from '../support/server.mjs';
import { ask, assertHas, eventually, once, record, within } from '../support/wait.mjs';

let service;
before(async () => (service = await startService(WITH_TOKENS)));
after(() => service.stop());

const bearer = (token) => ({ Authorization: `Bearer ${token}` });

/** Starts a service for one test. */
async function startFor(t, settings) {
  const started = await startService(settings);
  t.after(() => started.kill());
  return started;
}

describe('the token is taken', () => {
  for (const release of Object.keys(RELEASES)) {
    for (const transport of Object.keys(TRANSPORTS)) {
      test(`from auth.token, by socket.io-client ${release} over ${transport}`, async (t) => {
        const socket = await enter(t, service, 'ada', { release, transport });
        assert.equal(socket.ready.user_id, 'ada');
      });
    }
  }

  test('from auth.token as an auth function gives it', async (t) => {
    const auth = (done) => done({ token: tokenOf('ada') });
    assert.equal((await join(t, service.url, { auth })).ready.user_id, 'ada');
  });

  for (const transport of Object.keys(TRANSPORTS)) {
    test(`from the header Authorization over ${transport}`, async (t) => {
      const socket = await join(t, service.url, { transport, extraHeaders: bearer(tokenOf('bob')) });
      assert.equal(socket.ready.user_id, 'bob');
    });
  }

  test('from a header whose scheme is written small', async (t) => {
    const extraHeaders = { authorization: `bearer ${tokenOf('bob')}` };
    assert.equal((await join(t, service.url, { extraHeaders })).ready.user_id, 'bob');
  });

  test('with a prefix Bearer inside auth.token', async (t) => {
    const auth = { token: `Bearer ${tokenOf('ada')}` };
    assert.equal((await join(t, service.url, { auth })).ready.user_id, 'ada');
  });

  test('from auth.token before the header', async (t) => {
    const socket = await enter(t, service, 'ada', { extraHeaders: bearer(tokenOf('bob')) });
    assert.equal(socket.ready.user_id, 'ada');
  });

  test('from auth.token even if it is bad and the header is good', async (t) => {
    const options = { auth: { token: 'bad' }, extraHeaders: bearer(tokenOf('bob')) };
    await refusedEntry(t, service, options, 'token_invalid');
  });

  test('from the header when the CONNECT payload has other fields only', async (t) => {
    const options = { auth: { client: 'test/1.0' }, extraHeaders: bearer(tokenOf('bob')) };
    assert.equal((await join(t, service.url, options)).ready.user_id, 'bob');
  });

  test('not from the query by default', async (t) => {
    await refusedEntry(t, service, { query: { token: tokenOf('cy') } }, 'unauthorized');
  });

  test('not from a header of another scheme', async (t) => {
    const extraHeaders = { Authorization: `Basic ${Buffer.from('ada:secret').toString('base64')}` };
    await refusedEntry(t, service, { extraHeaders }, ['unauthorized', 'token_invalid']);
  });

  test('not from a cookie', async (t) => {
    const extraHeaders = { Cookie: `token=${tokenOf('cy')}; access_token_cookie=${tokenOf('cy')}` };
    await refusedEntry(t, service, { extraHeaders }, 'unauthorized');
  });
});

describe('with AUTH_QUERY_TOKEN=1', () => {
  let lenient;
  let logged = '';
  before(async () => {
    lenient = await startService({ ...WITH_TOKENS, AUTH_QUERY_TOKEN: '1', LOG_LEVEL: 'debug' });
    // The log that the server object keeps is only the end of it.
    for (const stream of [lenient.child.stdout, lenient.child.stderr]) stream.on('data', (text) => (logged += text));
  });
  after(() => lenient.stop());

  for (const transport of Object.keys(TRANSPORTS)) {
    test(`the query counts over ${transport}`, async (t) => {
      const socket = await join(t, lenient.url, { transport, query: { token: tokenOf('cy') } });
      assert.equal(socket.ready.user_id, 'cy');
    });
  }

  test('auth.token and the header come first', async (t) => {
    const query = { token: tokenOf('cy') };
    assert.equal((await enter(t, lenient, 'ada', { query })).ready.user_id, 'ada');
    const socket = await join(t, lenient.url, { query, extraHeaders: bearer(tokenOf('bob')) });
    assert.equal(socket.ready.user_id, 'bob');
  });

  test('no token comes into the log, wherever it was sent and whether it is good or not', async (t) => {
    const seen = [];
    const made = (user, claims) => {
      seen.push(tokenOf(user, claims));
      return seen.at(-1);
    };
    for (const transport of Object.keys(TRANSPORTS)) {
      await join(t, lenient.url, { transport, query: { token: made('q1') } });
      await join(t, lenient.url, { transport, auth: { token: made('q2') } });
      await join(t, lenient.url, { transport, extraHeaders: bearer(made('q3')) });
      const old = { exp: inSeconds(-3600) };
      await refusedEntry(t, lenient, { transport, query: { token: made('q4', old) } }, 'token_expired');
      await refusedEntry(t, lenient, { transport, auth: { token: made('q5', old) } }, 'token_expired');
    }
    // Percent-encoded, under a path that is not there, and with a handshake that is wrong in other ways.
    const query = `token=${made('q6').replaceAll('.', '%2E')}`;
    await lenient.get(`/nope?${query}`);
    await lenient.get(`/socket.io/?EIO=3&transport=polling&${query}`);
    await lenient.get(`/socket.io/?EIO=4&transport=none&${query}`);
    await lenient.get(`/socket.io/?EIO=4&transport=polling&sid=none&${query}`);
    await Rest.bearer(lenient, made('q7')).get('/unread');
    await Rest.bearer(lenient, made('q8', { exp: 1 })).get('/unread');
    // Whatever was written of all that was written before this client was greeted.
    const last = await enter(t, lenient, 'the-last-one');
    await ask(last, 'message', 'x');
    assert.ok(logged.length > 0, 'nothing at all is logged with LOG_LEVEL=debug');
    for (const token of seen) {
      const [, payload, signature] = token.split('.');
      assert.ok(!logged.includes(payload) && !logged.includes(signature), `a token is in the log:\n${logged}`);
    }
  });
});

describe('ready', () => {
  test('tells who one is, and until when', async (t) => {
    const exp = inSeconds(1234);
    const socket = await enter(t, service, 'ada', { claims: { name: 'Ada L.', exp } });
    const { instance, server_time, ...rest } = socket.ready;
    assert.deepEqual(rest, {
      user_id: 'ada',
      name: 'Ada L.',
      sid: socket.id,
      protocol: 1,
      exp: exp * 1000,
      limits: { text: 4000, payload: 65_536, history_page: 100 },
      unread: { notifications: 0, meetings: {} },
    });
    assert.ok(typeof instance === 'string' && instance.length > 0, `instance ${instance}`);
    assert.ok(Math.abs(server_time - Date.now()) < 60_000, `server_time ${server_time}`);
  });

  test('is the first event after the CONNECT answer', async (t) => {
    const socket = await openEngine(t, service.url, '/socket.io/');
    socket.send(`40${JSON.stringify({ token: tokenOf('ada') })}`);
    assert.match(await socket.next(), /^40\{"sid":"[^"]+"\}$/);
    assert.match(await socket.next(), /^42\["ready",\{/);
  });

  test('names the sender that others see', async (t) => {
    const [ada, bob] = [
      await enter(t, service, 'ada', { claims: { name: 'Ada' } }),
      await enter(t, service, 'bob', { claims: { username: 'bobby' } }),
    ];
    for (const socket of [ada, bob]) await ask(socket, 'join_room', 'identity');
    const heard = once(bob, 'chat_message');
    await ask(ada, 'chat_message', { meeting_id: 'identity', text: 'hi', sender: 'bob', sender_name: 'Bob' });
    assertHas((await heard)[0], { sender: 'ada', sender_name: 'Ada' });
  });
});

describe('the user id', () => {
  const aliases = [
    ['sub', { sub: 's', user_id: 'u', identity: 'i', id: 'd' }, 's'],
    ['user_id without sub', { sub: undefined, user_id: 'u', identity: 'i', id: 'd' }, 'u'],
    ['identity without those', { sub: undefined, identity: 'i', id: 'd' }, 'i'],
    ['id without all of them', { sub: undefined, id: 'd' }, 'd'],
    ['an integer sub', { sub: 42 }, '42'],
    ['an integer id', { sub: undefined, id: 0 }, '0'],
    ['the largest integer', { sub: Number.MAX_SAFE_INTEGER }, '9007199254740991'],
    ['128 characters', { sub: 'x'.repeat(128) }, 'x'.repeat(128)],
    ['128 characters outside ASCII', { sub: 'é'.repeat(128) }, 'é'.repeat(128)],
    ['an e-mail address', { sub: 'ada+test@example.org' }, 'ada+test@example.org'],
    ['blanks and signs', { sub: 'a b/c:d|"\\' }, 'a b/c:d|"\\'],
  ];
  for (const [name, claims, expected] of aliases) {
    test(`is taken from ${name}`, async (t) => {
      const { ready } = await enter(t, service, 'unused', { claims });
      assert.equal(ready.user_id, expected);
    });
  }

  const wrong = [
    ['no claim that names one', { sub: undefined }],
    ['an empty sub', { sub: '' }],
    ['129 characters', { sub: 'x'.repeat(129) }],
    ['a control character', { sub: 'a\nb' }],
    ['NUL', { sub: 'a\0' }],
    ['DEL', { sub: 'a\x7f' }],
    ['a fraction', { sub: 1.5 }],
    ['a negative integer', { sub: -1 }],
    ['an integer above 2^53-1', { sub: 2 ** 53 }],
    ['true', { sub: true }],
    ['a list', { sub: ['ada'] }],
    ['an object', { sub: { id: 'ada' } }],
  ];
  for (const [name, claims] of wrong) {
    test(`is refused: ${name}`, async (t) => {
      await refusedEntry(t, service, { auth: { token: tokenOf('unused', claims) } }, 'token_invalid');
    });
  }

  test('is taken from JWT_USER_CLAIM and from no other claim', async (t) => {
    const other = await startFor(t, { ...WITH_TOKENS, JWT_USER_CLAIM: 'uid' });
    assert.equal((await enter(t, other, 'sub', { claims: { uid: 'u-1', user_id: 'x' } })).ready.user_id, 'u-1');
    assert.equal((await enter(t, other, 'sub', { claims: { uid: 7 } })).ready.user_id, '7');
    await refusedEntry(t, other, { auth: { token: tokenOf('sub') } }, 'token_invalid');
  });
});

describe('the name', () => {
  const names = [
    ['name', { name: 'N', username: 'U', email: 'e@x.org' }, 'N'],
    ['username without name', { username: 'U', email: 'e@x.org' }, 'U'],
    ['the local part of email without both', { email: 'eve.smith@x.org' }, 'eve.smith'],
    ['80 characters', { name: 'é'.repeat(80) }, 'é'.repeat(80)],
  ];
  for (const [what, claims, expected] of names) {
    test(`is taken from ${what}`, async (t) => {
      assert.equal((await enter(t, service, 'ada', { claims })).ready.name, expected);
    });
  }

  test('is something even without a claim', async (t) => {
    const { name } = (await enter(t, service, 'ada')).ready;
    assert.ok(typeof name === 'string' && name.length > 0, `name ${name}`);
  });

  test('is never longer than 80 characters', async (t) => {
    for (const claims of [{ name: 'é'.repeat(500) }, { username: 'x'.repeat(81) }, { email: `${'x'.repeat(81)}@y` }]) {
      const { name } = (await enter(t, service, 'ada', { claims })).ready;
      assert.ok([...name].length >= 1 && [...name].length <= 80, `${[...name].length} characters`);
    }
  });
});

describe('a refusal', () => {
  const cases = [
    ['no payload at all', '40', ['unauthorized']],
    ['a payload without token', '40{}', ['unauthorized']],
    ['a token that is none', '40{"token":"nonsense"}', ['token_invalid']],
    ['a token of three empty parts', '40{"token":".."}', ['token_invalid']],
    ['a token that is a number', '40{"token":5}', ['unauthorized', 'token_invalid']],
    ['a token that is null', '40{"token":null}', ['unauthorized', 'token_invalid']],
    ['an empty token', '40{"token":""}', ['unauthorized', 'token_invalid']],
    ['a prefix and nothing more', '40{"token":"Bearer "}', ['unauthorized', 'token_invalid']],
    ['an old token', () => `40{"token":"${tokenOf('ada', { exp: inSeconds(-3600) })}"}`, ['token_expired']],
  ];
  for (const [name, packet, codes] of cases) {
    test(`for ${name} is {"message":"unauthorized","data":E}`, async (t) => {
      const socket = await openEngine(t, service.url, '/socket.io/');
      socket.send(typeof packet === 'string' ? packet : packet());
      const answer = await socket.next();
      assert.match(answer, /^44\{/);
      const error = JSON.parse(answer.slice(2));
      assert.deepEqual(Object.keys(error).sort(), ['data', 'message']);
      assert.equal(error.message, 'unauthorized');
      const { code, message, ...rest } = error.data;
      assert.ok(codes.includes(code), answer);
      assert.ok(typeof message === 'string' && message.length > 0, answer);
      for (const field of Object.keys(rest)) {
        assert.ok(['retry_after_ms', 'details', 'request_id'].includes(field), `unknown field ${field}`);
      }
    });
  }

  test('shows nothing of the token', async (t) => {
    const token = tokenOf('ada', { exp: inSeconds(-3600), name: 'very-private' });
    const error = JSON.stringify(await refusedEntry(t, service, { auth: { token } }, 'token_expired'));
    for (const part of [...token.split('.'), 'ada', 'very-private']) assert.ok(!error.includes(part), error);
  });

  test('leaves no socket behind: nothing that follows is done', async (t) => {
    const member = await enter(t, service, 'ada');
    await ask(member, 'join_room', 'guarded');
    const { items } = record(member, 'chat_message');
    const socket = await openEngine(t, service.url, '/socket.io/');
    socket.send(
      '40{"token":"nonsense"}',
      '420["join_room","guarded"]',
      '421["chat_message",{"meeting_id":"guarded","text":"intruder"}]',
    );
    assert.match(await socket.next(), /^44/);
    // Either the session is ended or it goes on without a socket; a second CONNECT tells, as its answer comes last.
    socket.send(`40${JSON.stringify({ token: tokenOf('late') })}`);
    const rest = [];
    await within(
      (async () => {
        while (!socket.closeEvent && !rest.some((frame) => /^42\["ready"/.test(frame))) rest.push(await socket.next());
      })().catch(() => {}),
      'the end of the session or ready',
    );
    assert.deepEqual(
      rest.filter((frame) => /^43|^42\["(?!ready)/.test(frame)),
      [],
    );
    await ask(member, 'message', 'settled');
    assert.deepEqual(items, []);
    assertHas(await ask(member, 'join_room', 'guarded'), { ok: true, members: 1, seq: 0 });
  });

  test('does not keep the same client from coming back with a better token', async (t) => {
    const tokens = ['nonsense', tokenOf('ada')];
    const socket = open(t, service.url, { auth: (done) => done({ token: tokens.shift() }) });
    const [error] = await once(socket, 'connect_error');
    assert.equal(error.data.code, 'token_invalid');
    const ready = once(socket, 'ready');
    socket.connect();
    assert.equal((await ready)[0].user_id, 'ada');
  });
});

describe('exp', () => {
  test('is required', async (t) => {
    await refusedEntry(t, service, { auth: { token: sign({ sub: 'ada' }) } }, 'token_invalid');
  });

  test('is not required with JWT_REQUIRE_EXP=0', async (t) => {
    const other = await startFor(t, { ...WITH_TOKENS, JWT_REQUIRE_EXP: '0' });
    const { ready } = await join(t, other.url, { auth: { token: sign({ sub: 'ada' }) } });
    assertHas(ready, { user_id: 'ada', exp: null });
    await refusedEntry(t, other, { auth: { token: sign({ sub: 'ada', exp: inSeconds(-60) }) } }, 'token_expired');
  });
});

describe('the sockets of a user', () => {
  test('are at most MAX_SOCKETS_PER_USER; the next is refused until one has gone', async (t) => {
    const small = await startFor(t, { ...WITH_TOKENS, MAX_SOCKETS_PER_USER: '3' });
    const sockets = [];
    for (let n = 0; n < 3; n++) sockets.push(await enter(t, small, 'ada'));
    const auth = { token: tokenOf('ada') };
    await refusedEntry(t, small, { auth }, 'limit_reached');
    await enter(t, small, 'bob');
    sockets[0].disconnect();
    await eventually(async () => assert.equal((await entry(t, small, { auth })).error, undefined));
    await refusedEntry(t, small, { auth }, 'limit_reached');
    for (const socket of sockets.slice(1)) assert.equal(socket.connected, true);
  });

  test('are 20 by default', async (t) => {
    for (let n = 0; n < 20; n++) await enter(t, service, 'many');
    await refusedEntry(t, service, { auth: { token: tokenOf('many') } }, 'limit_reached');
  });
});

describe('keys', () => {
  for (const [name, settings] of [
    ['SECRET_KEY when there is no JWT_SECRET_KEY', { AUTH_MODE: 'jwt', SECRET_KEY: SECRET }],
    ['JWT_SECRET_KEY before SECRET_KEY', { ...WITH_TOKENS, SECRET_KEY: 'another-key-another-key-another-key' }],
    ['a key alone, which turns tokens on', { SECRET_KEY: SECRET }],
  ]) {
    test(`are taken from ${name}`, async (t) => {
      const other = await startFor(t, settings);
      assert.equal((await enter(t, other, 'ada')).ready.user_id, 'ada');
      const token = sign(claimsOf('ada'), { key: 'another-key-another-key-another-key' });
      await refusedEntry(t, other, { auth: { token } }, 'token_invalid');
      await refusedEntry(t, other, {}, 'unauthorized');
    });
  }

  for (const algorithm of ['HS384', 'HS512']) {
    test(`of HMAC do for ${algorithm} if it is configured`, async (t) => {
      const other = await startFor(t, { ...WITH_TOKENS, JWT_ALGORITHMS: algorithm });
      assert.equal(
        (await join(t, other.url, { auth: { token: tokenOf('ada', {}, { algorithm }) } })).ready.user_id,
        'ada',
      );
      await refusedEntry(t, other, { auth: { token: tokenOf('ada') } }, 'token_invalid');
    });
  }

  test('of several algorithms of one family may be configured', async (t) => {
    const other = await startFor(t, { ...WITH_TOKENS, JWT_ALGORITHMS: 'HS256,HS512' });
    for (const algorithm of ['HS256', 'HS512']) {
      const auth = { token: tokenOf('ada', {}, { algorithm }) };
      assert.equal((await join(t, other.url, { auth })).ready.user_id, 'ada');
    }
    const auth = { token: tokenOf('ada', {}, { algorithm: 'HS384' }) };
    await refusedEntry(t, other, { auth }, 'token_invalid');
  });
});

/** What a service says that ends at its start; it must not take long over it. */
async function refusesToStart(t, settings) {
  const env = { PATH: process.env.PATH, HOST: '127.0.0.1', PORT: String(await freePort()), ...settings };
  const child = spawn(process.env.CHAT_SERVICE_BIN, [], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  t.after(() => child.kill('SIGKILL'));
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text) => (said += text));
  const ended = new Promise((resolve) => child.once('close', (code, signal) => resolve({ code, signal })));
  const { code, signal } = await within(ended, 'the service to refuse to start');
  assert.ok(Number.isInteger(code) && code !== 0, `code ${code}, signal ${signal}`);
  return said;
}

describe('production', () => {
  const key = 'k'.repeat(15);
  for (const variable of ['ENV', 'FLASK_ENV']) {
    test(`by ${variable} does not start without a key, and names the settings`, async (t) => {
      const said = await refusesToStart(t, { [variable]: 'production' });
      assert.match(said, /JWT_SECRET_KEY/);
    });

    for (const setting of ['SECRET_KEY', 'JWT_SECRET_KEY']) {
      test(`by ${variable} does not start with a ${setting} of 15 bytes, and does not show it`, async (t) => {
        const said = await refusesToStart(t, { [variable]: 'production', [setting]: key });
        assert.match(said, new RegExp(`\\b${setting}\\b`));
        assert.ok(!said.includes(key), said);
      });
    }

    test(`by ${variable} starts with a key of 16 bytes and takes tokens`, async (t) => {
      const settings = { [variable]: 'production', SECRET_KEY: `${key}k`, HOST: '127.0.0.1' };
      const other = await startFor(t, settings);
      const auth = { token: tokenOf('ada', {}, { key: `${key}k` }) };
      assert.equal((await join(t, other.url, { auth })).ready.user_id, 'ada');
      await refusedEntry(t, other, {}, 'unauthorized');
      assertError(await new Rest(other).get('/unread'), 401, 'unauthorized');
    });
  }

  test('counts bytes, not characters', async (t) => {
    await startFor(t, { ENV: 'production', SECRET_KEY: 'é'.repeat(8), HOST: '127.0.0.1' });
    await refusesToStart(t, { ENV: 'production', SECRET_KEY: `${'é'.repeat(7)}x` });
  });

  test('warns under 32 bytes and not from there on', async (t) => {
    const short = await startFor(t, { ENV: 'production', SECRET_KEY: 'k'.repeat(31), HOST: '127.0.0.1' });
    assert.match(short.log, /SECRET_KEY/);
    assert.ok(!short.log.includes('k'.repeat(31)), 'the key is in the log');
    const long = await startFor(t, { ENV: 'production', SECRET_KEY: 'k'.repeat(32), HOST: '127.0.0.1' });
    assert.doesNotMatch(long.log, /SECRET_KEY/);
  });
});

describe('settings that do not fit together', () => {
  const { pem } = keyPair('ES256');
  const cases = [
    ['both families', { ...WITH_TOKENS, JWT_ALGORITHMS: 'HS256,RS256', JWT_PUBLIC_KEY: pem }, /JWT_ALGORITHMS/],
    ['the algorithm none', { ...WITH_TOKENS, JWT_ALGORITHMS: 'none' }, /JWT_ALGORITHMS/],
    ['an algorithm that is not known', { ...WITH_TOKENS, JWT_ALGORITHMS: 'HS257' }, /JWT_ALGORITHMS/],
    ['a public-key algorithm without a key', { ...WITH_TOKENS, JWT_ALGORITHMS: 'RS256' }, /JWT_PUBLIC_KEY|JWKS_URL/],
    ['tokens without any key', { AUTH_MODE: 'jwt' }, /JWT_SECRET_KEY/],
    [
      'a public key that is none',
      { AUTH_MODE: 'jwt', JWT_ALGORITHMS: 'ES256', JWT_PUBLIC_KEY: 'not a key' },
      /JWT_PUBLIC_KEY/,
    ],
    [
      'a public key of another algorithm',
      { AUTH_MODE: 'jwt', JWT_ALGORITHMS: 'RS256', JWT_PUBLIC_KEY: pem },
      /JWT_PUBLIC_KEY/,
    ],
    ['a mode that is not known', { ...WITH_TOKENS, AUTH_MODE: 'maybe' }, /AUTH_MODE/],
  ];
  for (const [name, settings, names] of cases) {
    test(`are refused at the start: ${name}`, async (t) => {
      const said = await refusesToStart(t, settings);
      assert.match(said, names);
      assert.ok(!said.includes(SECRET), 'the key is shown');
    });
  }
});

describe('development', () => {
  let lax;
  before(async () => (lax = await startService()));
  after(() => lax.stop());

  test('knows nobody: the user id is the socket id, tokens are not looked at, and that is said once', async (t) => {
    for (const auth of [undefined, {}, { token: 'nonsense' }, { token: tokenOf('ada') }]) {
      const { ready, id } = await join(t, lax.url, { auth });
      assertHas(ready, { user_id: id, sid: id, exp: null });
    }
    assert.equal(lax.log.match(/AUTH_MODE/g)?.length, 1, lax.log);
  });

  test('by AUTH_MODE=none is the same although there is a key', async (t) => {
    const other = await startFor(t, { ...WITH_TOKENS, AUTH_MODE: 'none' });
    const { ready, id } = await join(t, other.url, { auth: { token: tokenOf('ada') } });
    assert.equal(ready.user_id, id);
  });
});
