// Promise: what these tests stand on does what it says: a Redis that can be ended and started again, a proxy that
// spoils exactly what it is told to, a reader of Redis' protocol that no chunk confuses.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { describe, test } from 'node:test';

import { History } from '../support/history/record.mjs';
import { emitted, pack } from '../support/msgpack.mjs';
import { ALL, COMMANDS, Proxy, SUBSCRIBERS } from '../support/proxy.mjs';
import { Redis, RedisClient } from '../support/redis.mjs';
import { Reader, RedisError, asText, encode } from '../support/resp.mjs';
import { range } from '../support/chat.mjs';
import { eventually, within } from '../support/wait.mjs';

async function startRedis(t, options) {
  const redis = await Redis.start(options);
  t.after(() => redis.remove());
  return redis;
}

describe('the protocol', () => {
  const cases = [
    ['a status', '+OK\r\n', 'OK'],
    ['an integer', ':-12\r\n', -12],
    ['a string', '$4\r\na\r\nb\r\n', 'a\r\nb'],
    ['an empty string', '$0\r\n\r\n', ''],
    ['nothing', '$-1\r\n', null],
    ['no list', '*-1\r\n', null],
    ['an empty list', '*0\r\n', []],
    ['a list of lists', '*2\r\n*1\r\n:1\r\n$1\r\nx\r\n', [[1], 'x']],
    ['a push of version 3', '>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n', ['message', 'c', 'hi']],
    ['a map of version 3', '%1\r\n+a\r\n_\r\n', ['a', null]],
    ['values of version 3', '*3\r\n#t\r\n,1.5\r\n(123\r\n', [true, '1.5', '123']],
  ];
  for (const [name, wire, expected] of cases) {
    test(`${name}, cut at every byte`, () => {
      const bytes = Buffer.from(`${wire}${wire}`);
      for (let cut = 0; cut <= bytes.length; cut++) {
        const reader = new Reader();
        const values = [...reader.push(bytes.subarray(0, cut)), ...reader.push(bytes.subarray(cut))];
        assert.deepEqual(
          values.map(({ value }) => asText(value)),
          [expected, expected],
        );
        assert.deepEqual(Buffer.concat(values.map((value) => value.bytes)), bytes);
      }
    });
  }

  test('an error is one', () => {
    const [{ value }] = new Reader().push(Buffer.from('-OOM too much\r\n'));
    assert.ok(value instanceof RedisError);
    assert.equal(value.message, 'OOM too much');
  });

  test('a command is written in bytes', () => {
    assert.equal(
      encode(['SET', 'é', Buffer.from([0xff]), 1]).toString('latin1'),
      '*4\r\n$3\r\nSET\r\n$2\r\n\xc3\xa9\r\n$1\r\n\xff\r\n$1\r\n1\r\n',
    );
  });

  test('anything else is refused', () => {
    assert.throws(() => new Reader().push(Buffer.from('HTTP/1.1 200\r\n')), /not Redis' protocol/);
  });
});

describe('MessagePack', () => {
  test('is as emitters write it', () => {
    const captured =
      '93a7656d697474657283a47479706502a46461746192a66e6f7469667981a2696407a36e7370a12f' +
      '83a5726f6f6d7391a7757365723a3432a5666c61677380a665786365707490';
    assert.equal(emitted(['user:42'], 'notify', { id: 7 }).toString('hex'), captured);
  });

  const cases = [
    ['nothing', [null, undefined], '92c0c0'],
    ['truth', [true, false], '92c3c2'],
    ['integers', [0, 127, 128, 2 ** 32 - 1], '94007fce00000080ceffffffff'],
    ['other numbers', [1.5, -1], '92cb3ff8000000000000cbbff0000000000000'],
    ['bytes', Buffer.from([1, 2]), 'c4020102'],
    ['the longest short string', 'x'.repeat(31), `bf${'78'.repeat(31)}`],
    ['a longer string', 'x'.repeat(32), `d920${'78'.repeat(32)}`],
    ['a long list', Array(16).fill(0), `dc0010${'00'.repeat(16)}`],
  ];
  for (const [name, value, bytes] of cases) test(name, () => assert.equal(pack(value).toString('hex'), bytes));
});

describe('a history', () => {
  test('tells who was given what how late, live, with a join and by pages', () => {
    const history = new History();
    const event = { event: 'chat_message', meeting_id: 'm', epoch: 'e', seq: 1 };
    history.note('live', { client: 'ann', event });
    history.note('joined', { client: 'bob', meeting: 'm', ack: { events: [event] } });
    history.note('page', { client: 'cleo', meeting: 'm', after: 0, ack: { items: [event] } });
    history.records.forEach((record, n) => (record.at = n * 10));
    const told = history.lateness().map(({ client, ms }) => `${client} ${ms}`);
    assert.deepEqual(told, ['cleo 20', 'bob 10', 'ann 0']);
  });

  test('is given on as it was', async () => {
    const history = new History();
    const event = { seq: 1 };
    const next = history.next(({ op, client }) => op === 'live' && client === 'bob');
    history.note('live', { client: 'ann', event });
    history.note('live', { client: 'bob', event });
    event.seq = 2;
    assert.deepEqual([(await next).event, history.of('live').length], [{ seq: 1 }, 2]);
  });
});

describe('a Redis', () => {
  test('answers, and its files are gone at the end', async () => {
    const redis = await Redis.start();
    try {
      assert.equal(await redis.command('SET', 'a', 'b'), 'OK');
      assert.equal(await redis.command('GET', 'a'), 'b');
      await assert.rejects(redis.command('INCR', 'a'), RedisError);
      assert.equal((await redis.info('persistence')).aof_enabled, '0');
    } finally {
      await redis.remove();
    }
    assert.ok(!existsSync(redis.dir));
    await assert.rejects(redis.command('PING'));
  });

  test('keeps nothing without AOF, and all of it with it', async (t) => {
    for (const [aof, kept] of [
      [undefined, null],
      ['always', 'b'],
    ]) {
      const redis = await startRedis(t, { aof });
      await redis.command('SET', 'a', 'b');
      await redis.stop();
      assert.deepEqual(redis.ended, { code: 0, signal: null });
      await redis.start();
      assert.equal(await redis.command('GET', 'a'), kept, `AOF ${aof}`);
      await redis.kill();
      await redis.start();
      assert.equal(await redis.command('GET', 'a'), kept, `AOF ${aof}, killed`);
    }
  });

  test('loses the end of its AOF if the end is cut off', async (t) => {
    const redis = await startRedis(t, { aof: 'always' });
    await redis.command('SET', 'a', 'before');
    const cut = redis.markAof();
    await redis.command('EVAL', "redis.call('SET','a','behind') redis.call('SET','b','behind')", '0');
    await redis.kill();
    cut();
    await redis.start();
    assert.deepEqual(await redis.command('MGET', 'a', 'b'), ['before', null]);
  });

  test('suspended, is silent until it goes on', async (t) => {
    const redis = await startRedis(t);
    const client = await redis.connect();
    redis.suspend();
    const answer = client.command('PING');
    await assert.rejects(within(client.command('PING'), 'nothing', 200), /waited 200 ms for nothing/);
    redis.resume();
    assert.equal(await answer, 'PONG');
    client.close();
  });

  test('follows another and is promoted', async (t) => {
    const master = await startRedis(t);
    const replica = await startRedis(t, { replicaOf: master.port });
    await eventually(async () => assert.ok(await replica.isSynced()));
    await master.command('SET', 'a', 'b');
    assert.equal(await master.command('WAIT', '1', '5000'), 1);
    assert.equal(await replica.command('GET', 'a'), 'b');
    await assert.rejects(replica.command('SET', 'a', 'c'), /READONLY/);
    await replica.command('REPLICAOF', 'NO', 'ONE');
    assert.equal(await replica.command('SET', 'a', 'c'), 'OK');
  });
});

describe('a proxy', () => {
  /** A Redis, a proxy in front of it, a subscriber to `c` and a connection for commands through the proxy. */
  async function behind(t) {
    const redis = await startRedis(t);
    const proxy = await Proxy.start(redis.port);
    t.after(() => proxy.stop());
    const [subscriber, commands] = await Promise.all([RedisClient.open(proxy.port), RedisClient.open(proxy.port)]);
    t.after(() => [subscriber, commands].forEach((client) => client.close()));
    await subscriber.command('SUBSCRIBE', 'c');
    await commands.command('PING');
    const got = () => subscriber.messages.map(([channel, payload]) => `${channel} ${payload}`);
    const publish = (...payloads) => Promise.all(payloads.map((payload) => redis.command('PUBLISH', 'c', payload)));
    const until = (...expected) => eventually(() => assert.deepEqual(got(), expected));
    return { redis, proxy, subscriber, commands, got, publish, until };
  }
  const numbers = range(1, 6).map(String);

  test('is not noticed', async (t) => {
    const { redis, proxy, commands, publish, until } = await behind(t);
    const bytes = 'é\r\n$5\r\n'.repeat(200_000);
    assert.equal(await commands.command('SET', 'a', bytes), 'OK');
    assert.equal(await commands.command('GET', 'a'), bytes);
    assert.equal(await redis.command('GET', 'a'), bytes);
    await publish(...numbers);
    await until(...numbers.map((n) => `c ${n}`));
    assert.deepEqual([proxy.connections(SUBSCRIBERS).length, proxy.connections(COMMANDS).length], [1, 1]);
  });

  for (const [how, expected] of [
    ['drop', '1 2 4 5 6'],
    ['duplicate', '1 2 3 3 4 5 6'],
    ['swap', '1 2 4 3 5 6'],
  ]) {
    test(`can ${how} one message, and only of the channel that is meant`, async (t) => {
      const { redis, proxy, publish, subscriber, until } = await behind(t);
      await subscriber.command('SUBSCRIBE', 'other');
      await publish('1', '2');
      await until('c 1', 'c 2');
      const done = proxy.tamper(how, (channel) => channel === 'c');
      await redis.command('PUBLISH', 'other', 'x');
      await publish('3', '4', '5', '6');
      assert.deepEqual(await done, { channel: 'c', payload: Buffer.from('3') });
      const [a, b, ...rest] = expected.split(' ').map((n) => `c ${n}`);
      await until(a, b, 'other x', ...rest);
    });
  }

  test('cut, ends connections of one kind, and takes new ones', async (t) => {
    for (const [which, gone, stays] of [
      [SUBSCRIBERS, 'subscriber', 'commands'],
      [COMMANDS, 'commands', 'subscriber'],
    ]) {
      const all = await behind(t);
      all.proxy.cut(which);
      await eventually(() => assert.ok(all[gone].isClosed));
      assert.ok(!all[stays].isClosed);
      const again = await RedisClient.open(all.proxy.port);
      assert.equal(await again.command('PING'), 'PONG');
      again.close();
    }
  });

  test('halted, lets nothing through and closes nothing; released, all of it', async (t) => {
    const { proxy, commands, subscriber, publish, until, got } = await behind(t);
    assert.equal(proxy.halt(SUBSCRIBERS), 1);
    await publish(...numbers);
    assert.equal(await commands.command('PING'), 'PONG');
    assert.equal(proxy.halt(ALL), 2);
    const answer = commands.command('GET', 'a');
    await assert.rejects(within(commands.command('PING'), 'nothing', 200), /waited 200 ms for nothing/);
    assert.deepEqual(got(), []);
    assert.ok(!subscriber.isClosed && !commands.isClosed);
    // Others pass.
    const other = await RedisClient.open(proxy.port);
    assert.equal(await other.command('PING'), 'PONG');
    other.close();
    proxy.release();
    assert.equal(await answer, null);
    await until(...numbers.map((n) => `c ${n}`));
  });

  test('silent, takes connections and says nothing', async (t) => {
    const { proxy } = await behind(t);
    proxy.isSilent = true;
    const client = await RedisClient.open(proxy.port);
    const answer = client.command('PING');
    await assert.rejects(within(client.command('PING'), 'nothing', 200), /waited 200 ms for nothing/);
    proxy.release();
    assert.equal(await answer, 'PONG');
    client.close();
  });

  test('switched, leads new connections elsewhere', async (t) => {
    const { redis, proxy, commands } = await behind(t);
    const other = await startRedis(t);
    await redis.command('SET', 'which', 'one');
    await other.command('SET', 'which', 'other');
    proxy.switchTo(other.port);
    assert.equal(await commands.command('GET', 'which'), 'one');
    proxy.cut();
    const again = await RedisClient.open(proxy.port);
    assert.equal(await again.command('GET', 'which'), 'other');
    again.close();
  });

  test('lets go of both ends when Redis is gone, and of Redis when a client is', async (t) => {
    const { redis, proxy, commands, subscriber } = await behind(t);
    subscriber.close();
    await eventually(async () => assert.equal((await redis.clients('pubsub')).length, 0));
    await redis.kill();
    await eventually(() => assert.ok(commands.isClosed));
    assert.equal(proxy.connections().length, 0);
  });
});
