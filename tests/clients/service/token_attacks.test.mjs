// Promise: no forged, bent or stale token gets anybody in, by socket or by HTTP, and trying costs the service nothing.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before, describe, test } from 'node:test';

import { AuthService } from '../support/auth_service.mjs';
import { join } from '../support/clients.mjs';
import {
  SECRET,
  WITH_TOKENS,
  assemble,
  base64url,
  claimsOf,
  enter,
  inSeconds,
  keyPair,
  refusedEntry,
  sign,
  tokenOf,
} from '../support/jwt.mjs';
import { Rest, assertError, assertStatus } from '../support/rest.mjs';
import { startService } from '../support/server.mjs';

const ISSUER = 'https://auth.example';
const AUDIENCE = 'chat';
const pairs = (kid) => Object.fromEntries(['RS256', 'ES256', 'EdDSA'].map((alg) => [alg, keyPair(alg, kid)]));
/** The keys of the Auth Service. */
const PAIRS = pairs();
/** The attacker's. */
const FOREIGN = pairs('mine');

/** One service for each kind of key. */
const services = {};
/** Nobody may be asked for a key that a token points at. */
let lure;

before(async () => {
  lure = await AuthService.start();
  services.HS256 = await startService(WITH_TOKENS);
  services.strict = await startService({ ...WITH_TOKENS, JWT_ISSUER: ISSUER, JWT_AUDIENCE: AUDIENCE });
  for (const [algorithm, { pem }] of Object.entries(PAIRS)) {
    services[algorithm] = await startService({ AUTH_MODE: 'jwt', JWT_ALGORITHMS: algorithm, JWT_PUBLIC_KEY: pem });
  }
});
after(async () => {
  await lure.down();
  for (const service of Object.values(services)) await service.stop();
});

/** What no header field can carry is tried over the socket only. */
const fitsHeader = (token) => /^[\x21-\x7e]*$/.test(token);

async function assertRefused(t, service, token, code = 'token_invalid') {
  for (const transport of ['websocket', 'polling'])
    await refusedEntry(t, service, { transport, auth: { token } }, code);
  if (!fitsHeader(token)) return;
  const error = assertError(await Rest.bearer(service, token).get('/unread'), 401, code);
  for (const part of token.split('.').filter((part) => part.length > 8)) {
    assert.ok(!JSON.stringify(error).includes(part), 'the answer shows the token');
  }
}

async function assertTaken(t, service, token) {
  await join(t, service.url, { auth: { token } });
  assertStatus(await Rest.bearer(service, token).get('/unread'), 200);
}

/** `attacks`: name, a function of nothing that makes the token, and the code if it is not `token_invalid`. */
function refuses(kind, attacks) {
  for (const [name, token, code] of attacks) {
    test(name, (t) => assertRefused(t, services[kind], token(), code));
  }
}

const forged = () => claimsOf('admin', { role: 'admin', meetings: '*' });
const hmac = (data, key) => createHmac('sha256', key).update(data).digest('base64url');

describe('good tokens, so that the refusals below mean something, are taken', () => {
  test('HS256', (t) => assertTaken(t, services.HS256, tokenOf('ada')));
  test('HS256 with iss and aud', (t) =>
    assertTaken(t, services.strict, tokenOf('ada', { iss: ISSUER, aud: AUDIENCE })));
  for (const [algorithm, pair] of Object.entries(PAIRS)) {
    test(algorithm, (t) => assertTaken(t, services[algorithm], pair.token('ada')));
  }
});

describe('no signature:', () => {
  for (const alg of ['none', 'None', 'NONE', 'nOnE', '']) {
    for (const [how, signature] of [
      ['none', () => ''],
      ['one of zeros', () => Buffer.alloc(32)],
      ['a right one', (data) => hmac(data, SECRET)],
    ]) {
      for (const kind of ['HS256', 'RS256', 'ES256', 'EdDSA']) {
        test(`alg "${alg}" and as signature ${how}, to a service of ${kind}`, async (t) => {
          const data = assemble({ alg, typ: 'JWT' }, forged(), '').slice(0, -1);
          await assertRefused(t, services[kind], assemble({ alg, typ: 'JWT' }, forged(), signature(data)));
        });
      }
    }
  }

  const good = () => tokenOf('ada');
  refuses('HS256', [
    ['alg left out', () => sign(forged(), { header: { alg: undefined } })],
    ['alg null', () => sign(forged(), { header: { alg: null } })],
    ['alg a list', () => sign(forged(), { header: { alg: ['HS256'] } })],
    ['alg a number', () => sign(forged(), { header: { alg: 0 } })],
    ['alg hs256 in small letters', () => sign(forged(), { header: { alg: 'hs256' } })],
    ['alg twice', () => sign(forged(), { header: '{"alg":"HS256","alg":"HS256","typ":"JWT"}' })],
    ['alg none, then HS256', () => sign(forged(), { header: '{"alg":"none","alg":"HS256","typ":"JWT"}' })],
    ['an algorithm that is not configured, rightly signed', () => sign(forged(), { algorithm: 'HS512' })],
    [
      'signed with one algorithm, named another',
      () => sign(forged(), { algorithm: 'HS512', header: { alg: 'HS256' } }),
    ],
    ['an extension that has to be understood', () => sign(forged(), { header: { crit: ['x'], x: 1 } })],
    ['an unencoded payload', () => sign(forged(), { header: { crit: ['b64'], b64: false } })],
    ['the wrong key', () => sign(forged(), { key: 'another-key-another-key-another-key' })],
    ['an empty key', () => sign(forged(), { key: '' })],
    ['a key with a line end', () => sign(forged(), { key: `${SECRET}\n` })],
    ['the signature of another token', () => `${assemble({ alg: 'HS256' }, forged(), '')}${good().split('.')[2]}`],
    [
      'the payload of another token',
      () => {
        const [header, , signature] = good().split('.');
        return `${header}.${base64url(JSON.stringify(forged()))}.${signature}`;
      },
    ],
  ]);
});

describe('a public key is no secret:', () => {
  const { RS256, ES256, EdDSA } = PAIRS;
  for (const [kind, pair] of Object.entries({ RS256, ES256, EdDSA })) {
    const confused = (key) => () => sign(forged(), { algorithm: 'HS256', key });
    refuses(kind, [
      [`HS256 with the PEM of ${kind}`, confused(pair.pem)],
      [`HS256 with the PEM of ${kind} without its last line end`, confused(pair.pem.trimEnd())],
      [`HS256 with the DER of ${kind}`, confused(pair.der)],
      [`HS256 with the base64 of ${kind}`, confused(pair.der.toString('base64'))],
      [`HS256 with the JWK of ${kind}`, confused(JSON.stringify(pair.jwk))],
      [
        `HS256 with the PEM of ${kind}, named ${kind}`,
        () => sign(forged(), { algorithm: 'HS256', key: pair.pem, header: { alg: kind } }),
      ],
      [`HS256 with the empty key, to a service of ${kind}`, confused('')],
    ]);
  }

  refuses(
    'HS256',
    Object.values(PAIRS).map((pair) => [`${pair.algorithm} to a service of HS256`, () => pair.token('admin')]),
  );
  refuses('RS256', [
    ['ES256 to a service of RS256', () => ES256.token('admin')],
    ['an RSA key of somebody else', () => FOREIGN.RS256.token('admin')],
  ]);
  refuses('EdDSA', [
    ['a key of somebody else, EdDSA', () => FOREIGN.EdDSA.token('admin')],
    ['a signature of zeros, EdDSA', () => assemble({ alg: 'EdDSA' }, forged(), Buffer.alloc(64))],
  ]);
  refuses('ES256', [
    ['a key of somebody else, ES256', () => FOREIGN.ES256.token('admin')],
    ['r and s zero', () => assemble({ alg: 'ES256', typ: 'JWT' }, forged(), Buffer.alloc(64))],
    [
      'r and s one',
      () => {
        const one = Buffer.alloc(64);
        one[31] = one[63] = 1;
        return assemble({ alg: 'ES256', typ: 'JWT' }, forged(), one);
      },
    ],
    [
      'r and s the order of the curve',
      () => {
        const order = Buffer.from('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551', 'hex');
        return assemble({ alg: 'ES256', typ: 'JWT' }, forged(), Buffer.concat([order, order]));
      },
    ],
  ]);
});

describe('a token does not bring its own key:', () => {
  for (const kind of ['RS256', 'ES256', 'EdDSA']) {
    const { jwk, der } = FOREIGN[kind];
    const { kid, ...bare } = jwk;
    refuses(kind, [
      [`jwk, ${kind}`, () => FOREIGN[kind].token('admin', {}, { jwk: bare })],
      [`jwk with kid ${kid}, ${kind}`, () => FOREIGN[kind].token('admin', {}, { jwk })],
      [`jku, ${kind}`, () => FOREIGN[kind].token('admin', {}, { jku: lure.jwksUrl })],
      [`x5u, ${kind}`, () => FOREIGN[kind].token('admin', {}, { x5u: `${lure.url}/cert.pem` })],
      [`x5c, ${kind}`, () => FOREIGN[kind].token('admin', {}, { x5c: [der.toString('base64')] })],
    ]);
  }
  refuses('HS256', [
    [
      'jwk of a secret',
      () => sign(forged(), { key: 'mine', header: { jwk: { kty: 'oct', k: base64url('mine'), alg: 'HS256' } } }),
    ],
    ['jku to a service of HS256', () => sign(forged(), { key: 'mine', header: { jku: lure.jwksUrl } })],
  ]);

  test('and nobody was asked for one', () => {
    assert.deepEqual([lure.keyRequests, lure.strays], [0, []]);
  });
});

describe('a kid is only a name:', () => {
  const kids = [
    ['an empty file', '/dev/null', ''],
    ['an empty file by a long way', '../../../../../../dev/null', ''],
    ['a file with known content', '../../../../proc/sys/kernel/randomize_va_space', '2\n'],
    ['a query', "x' UNION SELECT 'mine' -- ", 'mine'],
    ['a command', '|echo mine', 'mine'],
    ['an address', 'http://127.0.0.1/mine', 'mine'],
    ['itself', 'mine', 'mine'],
    ['4 000 characters', 'k'.repeat(4000), 'mine'],
    ['NUL', 'mine\0', 'mine'],
    ['a list', ['mine'], 'mine'],
    ['an object', { mine: 1 }, 'mine'],
  ];
  refuses(
    'HS256',
    kids.map(([name, kid, key]) => [name, () => sign(forged(), { key, header: { kid } })]),
  );
  refuses(
    'RS256',
    kids.map(([name, kid]) => [`${name}, RS256`, () => FOREIGN.RS256.token('admin', {}, { kid })]),
  );
});

describe('bent:', () => {
  const good = () => tokenOf('ada');
  const parts = () => good().split('.');
  const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  /** The same bytes for a lax decoder: the last of 43 characters carries two bits that mean nothing. */
  const alias = (part) => part.slice(0, -1) + ALPHABET[ALPHABET.indexOf(part.at(-1)) ^ 1];
  /** A good token whose part `n` fulfils `test`, as only some do. */
  const where = (test) => {
    for (let n = 0; ; n++) {
      const token = tokenOf('ada', { jti: `${n}` });
      if (test(token.split('.'))) return token;
    }
  };

  refuses('HS256', [
    ['an empty signature', () => parts().slice(0, 2).join('.') + '.'],
    ['no third part', () => parts().slice(0, 2).join('.')],
    ['only a header', () => parts()[0]],
    ['a fourth part', () => `${good()}.x`],
    ['an empty fourth part', () => `${good()}.`],
    ['five parts', () => `${good()}.x.x`],
    ['a dot before', () => `.${good()}`],
    ['the signature one character short', () => good().slice(0, -1)],
    ['the signature four characters short', () => good().slice(0, -4)],
    ['half a signature', () => good().slice(0, -22)],
    ['the signature one character long', () => `${good()}A`],
    ['the signature four characters long', () => `${good()}AAAA`],
    ['the signature twice', () => good() + parts()[2]],
    ['a signature with padding', () => `${good()}=`],
    ['a signature with two paddings', () => `${good()}==`],
    [
      'a signature whose last bits are not zero',
      () => {
        const [header, payload, signature] = parts();
        return [header, payload, alias(signature)].join('.');
      },
    ],
    [
      'the alphabet of plain base64 in the signature',
      () =>
        where(([, , signature]) => /[-_]/.test(signature))
          .split('.')
          .map((part, n) => (n === 2 ? part.replaceAll('-', '+').replaceAll('_', '/') : part))
          .join('.'),
    ],
    [
      'a header with padding, rightly signed',
      () => {
        const data = `${Buffer.from('{"alg":"HS256","typ":"JWT"} ').toString('base64')}.${parts()[1]}`;
        assert.match(data, /=\./);
        return `${data}.${hmac(data, SECRET)}`;
      },
    ],
    [
      'a payload with padding, rightly signed',
      () => {
        let text = JSON.stringify(claimsOf('ada'));
        while (text.length % 3 === 0) text += ' ';
        const data = `${parts()[0]}.${Buffer.from(text).toString('base64')}`;
        assert.match(data, /=$/);
        return `${data}.${hmac(data, SECRET)}`;
      },
    ],
    [
      'a payload of plain base64, rightly signed',
      () => {
        const text = JSON.stringify(claimsOf('ada', { name: '\u00ff\u00fe>>>???' }));
        const plain = Buffer.from(text).toString('base64').replaceAll('=', '');
        assert.match(plain, /[+/]/);
        const data = `${parts()[0]}.${plain}`;
        return `${data}.${hmac(data, SECRET)}`;
      },
    ],
    ['a line end after it', () => `${good()}\n`],
    ['a line end inside', () => good().replace('.', '\n.')],
    ['NUL after it', () => `${good()}\0`],
    ['a letter outside ASCII after it', () => `${good()}é`],
    ['a payload that is no JSON', () => sign('sub=ada')],
    ['an empty payload', () => sign('')],
    ['a payload that is a list', () => sign('[]')],
    ['a payload that is a string', () => sign('"ada"')],
    ['a payload that is null', () => sign('null')],
    ['something after the payload', () => sign(`${JSON.stringify(claimsOf('ada'))}{}`)],
    [
      'a payload that is not UTF-8',
      () =>
        sign(Buffer.concat([Buffer.from(`{"exp":${inSeconds(60)},"sub":"`), Buffer.from([0xff]), Buffer.from('"}')])),
    ],
    ['a payload cut short', () => sign(JSON.stringify(claimsOf('ada')).slice(0, -1))],
    ['a header that is no JSON', () => sign(claimsOf('ada'), { header: 'HS256' })],
    ['a header that is a list', () => sign(claimsOf('ada'), { header: '["HS256"]' })],
    ['something after the header', () => sign(claimsOf('ada'), { header: '{"alg":"HS256"}{}' })],
    [
      'the JSON form of a JWS',
      () => {
        const [header, payload, signature] = parts();
        return JSON.stringify({ protected: header, payload, signature });
      },
    ],
  ]);

  test('a nesting of thousands does no harm, whether it is refused or not', async (t) => {
    const deep = sign(`{"sub":"ada","exp":${inSeconds(600)},"x":${'['.repeat(2500)}${']'.repeat(2500)}}`);
    const { status } = await Rest.bearer(services.HS256, deep).get('/unread');
    assert.ok(status === 200 || status === 401, `${status}`);
    const name = sign(`{"sub":${'['.repeat(5000)}`);
    await assertRefused(t, services.HS256, name);
  });
});

describe('too long:', () => {
  const LIMIT = 8 * 1024;
  /** A good token of just that many bytes. */
  function ofLength(length) {
    for (let kid = 0; kid < 4; kid++) {
      const header = { kid: 'k'.repeat(kid) };
      const spare = length - tokenOf('ada', { pad: '' }, { header }).length;
      for (let pad = Math.floor((spare * 3) / 4) - 3; pad <= (spare * 3) / 4 + 3; pad++) {
        const token = tokenOf('ada', { pad: 'x'.repeat(pad) }, { header });
        if (token.length === length) return token;
      }
    }
    throw new Error(`no token of ${length} bytes`);
  }

  test('8 192 bytes are taken', (t) => assertTaken(t, services.HS256, ofLength(LIMIT)));
  test('8 193 bytes are refused', (t) => assertRefused(t, services.HS256, ofLength(LIMIT + 1)));
  test('9 KiB are refused', (t) => assertRefused(t, services.HS256, ofLength(9 * 1024)));
  test('60 000 bytes are refused over the socket', (t) =>
    refusedEntry(t, services.HS256, { auth: { token: ofLength(60_000) } }, 'token_invalid'));
});

describe('claims twice:', () => {
  const exp = () => inSeconds(600);
  refuses('HS256', [
    ['sub', () => sign(`{"sub":"ada","exp":${exp()},"sub":"admin"}`)],
    ['sub with the same value', () => sign(`{"sub":"ada","exp":${exp()},"sub":"ada"}`)],
    ['sub, once in an escape', () => sign(`{"sub":"ada","exp":${exp()},"s\\u0075b":"admin"}`)],
    ['exp, the second good', () => sign(`{"sub":"ada","exp":1,"exp":${exp()}}`)],
    ['exp, the first good', () => sign(`{"sub":"ada","exp":${exp()},"exp":1}`)],
    ['role', () => sign(`{"sub":"ada","exp":${exp()},"role":"user","role":"admin"}`)],
    ['type', () => sign(`{"sub":"ada","exp":${exp()},"type":"refresh","type":"access"}`)],
    ['meetings', () => sign(`{"sub":"ada","exp":${exp()},"meetings":[],"meetings":"*"}`)],
  ]);
});

describe('times:', () => {
  const at = (text) => () => sign(`{"sub":"ada","exp":${text}}`);
  const good = () => inSeconds(600);
  refuses('HS256', [
    ['exp left out', () => sign({ sub: 'ada' })],
    ['exp a string', () => sign({ sub: 'ada', exp: String(good()) })],
    ['exp a date', () => sign({ sub: 'ada', exp: new Date(Date.now() + 600_000).toISOString() })],
    ['exp a fraction', () => sign({ sub: 'ada', exp: good() + 0.5 })],
    ['exp null', at('null')],
    ['exp true', at('true')],
    ['exp a list', () => sign({ sub: 'ada', exp: [good()] })],
    ['exp negative', at('-1'), ['token_invalid', 'token_expired']],
    ['exp -2^63', at('-9223372036854775808'), ['token_invalid', 'token_expired']],
    ['exp 2^63', at('9223372036854775808')],
    ['exp 2^64', at('18446744073709551616')],
    ['exp 2^128', at('340282366920938463463374607431768211456')],
    ['exp 1e300', at('1e300')],
    ['exp 1e999', at('1e999')],
    ['exp NaN', at('NaN')],
    ['exp Infinity', at('Infinity')],
    ['exp zero', at('0'), 'token_expired'],
    ['exp past by more than the leeway', () => tokenOf('ada', { exp: inSeconds(-60) }), 'token_expired'],
    ['exp past by a day', () => tokenOf('ada', { exp: inSeconds(-86_400) }), 'token_expired'],
    ['exp past and the key wrong', () => sign(claimsOf('ada', { exp: 1 }), { key: 'x'.repeat(32) }), 'token_invalid'],
    ['nbf in the future', () => tokenOf('ada', { nbf: inSeconds(120) })],
    ['nbf a string', () => tokenOf('ada', { nbf: '0' })],
    ['iat in the future', () => tokenOf('ada', { iat: inSeconds(120) })],
    ['iat a string', () => tokenOf('ada', { iat: 'yesterday' })],
  ]);

  for (const [name, claims] of [
    ['exp past by less than the leeway', () => ({ exp: inSeconds(-5) })],
    ['nbf and iat in the future by less than the leeway', () => ({ nbf: inSeconds(10), iat: inSeconds(10) })],
    ['nbf and iat past', () => ({ nbf: 1, iat: inSeconds(-60) })],
  ]) {
    test(`${name} is taken`, (t) => assertTaken(t, services.HS256, tokenOf('ada', claims())));
  }
});

describe('for somebody else:', () => {
  const strict = (claims) => () => tokenOf('ada', { iss: ISSUER, aud: AUDIENCE, ...claims });
  refuses('strict', [
    ['no iss', strict({ iss: undefined })],
    ['another iss', strict({ iss: 'https://evil.example' })],
    ['iss with a slash more', strict({ iss: `${ISSUER}/` })],
    ['iss in a list', strict({ iss: [ISSUER] })],
    ['iss in capitals', strict({ iss: ISSUER.toUpperCase() })],
    ['no aud', strict({ aud: undefined })],
    ['another aud', strict({ aud: 'billing' })],
    ['aud that only begins so', strict({ aud: `${AUDIENCE}2` })],
    ['aud of others', strict({ aud: ['billing', 'calendar'] })],
    ['an empty list of aud', strict({ aud: [] })],
    ['aud an object', strict({ aud: { [AUDIENCE]: true } })],
  ]);
  test('one aud of several is taken', (t) => assertTaken(t, services.strict, strict({ aud: ['billing', AUDIENCE] })()));
});

describe('not for access:', () => {
  refuses('HS256', [
    ['a refresh token', () => tokenOf('ada', { type: 'refresh' })],
    ['another type', () => tokenOf('ada', { type: 'reset_password' })],
    ['Access in capitals', () => tokenOf('ada', { type: 'ACCESS' })],
    ['an empty type', () => tokenOf('ada', { type: '' })],
    ['a type that is a list', () => tokenOf('ada', { type: ['access'] })],
    ['a type that is a number', () => tokenOf('ada', { type: 1 })],
  ]);
  test('type access is taken', (t) => assertTaken(t, services.HS256, tokenOf('ada', { type: 'access' })));
});

test('after all of them every service is healthy and takes good tokens', async (t) => {
  await assertTaken(t, services.HS256, tokenOf('ada'));
  for (const [algorithm, pair] of Object.entries(PAIRS)) await assertTaken(t, services[algorithm], pair.token('ada'));
  for (const service of Object.values(services)) {
    assert.equal((await service.health()).json().status, 'ok');
    assert.equal((await service.metrics()).panics(), 0);
  }
  assert.equal((await enter(t, services.HS256, 'bob')).ready.user_id, 'bob');
});
