// Instances of the service at one Redis, each through a proxy of its own, and the stage for a fault among them.
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Crowd } from './history/crowd.mjs';
import { Proxy } from './proxy.mjs';
import { Redis } from './redis.mjs';
import { freePort, startService } from './server.mjs';
import { WITH_USERS } from './token.mjs';
import { eventually, within } from './wait.mjs';

/** The key of sibling services, for `/stats`. */
export const API_KEY = 'key-of-the-meeting-service-0123456789';

// Each server and each Redis has a listener that ends it with this process.
process.setMaxListeners(0);

const SETTINGS = { ...WITH_USERS, CHAT_API_KEY: API_KEY, MAX_SOCKETS_PER_USER: '0' };

export class Cluster {
  /** Running instances by name, `{ name, port, proxy, service }`; `isOpen`: clients may go there. */
  instances = [];

  /** `redis`: what `Redis.start` takes, or a Redis. `settings`: of every instance, or a function of its number. */
  static async start({ count = 3, redis = {}, settings = {} } = {}) {
    const cluster = new Cluster();
    cluster.settings = typeof settings === 'function' ? settings : () => settings;
    try {
      cluster.redis = redis instanceof Redis ? redis : await Redis.start(redis);
      for (let n = 0; n < count; n++) {
        const [proxy, port] = await Promise.all([Proxy.start(cluster.redis.port), freePort()]);
        cluster.instances.push({ name: `i-${n}`, n, port, proxy, isOpen: false });
      }
      await Promise.all(cluster.names.map((name) => cluster.launch(name)));
      return cluster;
    } catch (error) {
      await cluster.stop({ isFailed: true });
      throw error;
    }
  }

  get names() {
    return this.instances.map(({ name }) => name);
  }

  get proxies() {
    return this.instances.map(({ proxy }) => proxy);
  }

  instance(name) {
    return this.instances.find((instance) => instance.name === name);
  }

  service(name) {
    return this.instance(name).service;
  }

  /** Where clients may go, `[{ name, url }]`. */
  open() {
    return this.instances.filter(({ isOpen }) => isOpen).map(({ name, service }) => ({ name, url: service.url }));
  }

  /** Starts an instance, or starts it again on its port. */
  async launch(name) {
    const instance = this.instance(name);
    const settings = { ...SETTINGS, REDIS_URL: instance.proxy.url, ...this.settings(instance.n) };
    instance.service = await startService(settings, instance.port);
    instance.isOpen = true;
  }

  async kill(name) {
    const instance = this.instance(name);
    instance.isOpen = false;
    await instance.service.kill();
  }

  /** SIGTERM; answers how it ended. */
  async drain(name, ms = 30_000) {
    const instance = this.instance(name);
    instance.isOpen = false;
    instance.service.signal('SIGTERM');
    const ended = await within(instance.service.exited, `the end of ${name}`, ms);
    // Takes its reaper away.
    await instance.service.kill();
    return ended;
  }

  logs() {
    return this.instances.map(({ name, service }) => `--- ${name}\n${service?.log.slice(-3000)}`).join('\n');
  }

  /** Ends all; unless the test has failed anyway, every instance must have lived through it without a panic. */
  async stop({ isFailed = false } = {}) {
    const ends = this.instances.map(({ service }) =>
      isFailed ? service?.kill() : service?.ended ? undefined : service?.stop(),
    );
    const results = await Promise.allSettled(ends);
    await Promise.all(this.proxies.map((proxy) => proxy.stop()));
    await this.redis?.remove();
    const broken = results.find(({ status }) => status === 'rejected');
    if (broken && !isFailed) throw broken.reason;
  }
}

/** A replica of the cluster's Redis, and the link between them. */
export async function follow(t, redis) {
  const link = await Proxy.start(redis.port, { isRaw: true });
  t.after(() => link.stop());
  const replica = await Redis.start({ replicaOf: link.port });
  t.after(() => replica.remove());
  await eventually(async () => assert.ok(await replica.isSynced()));
  return { link, replica };
}

/**
 * A cluster and a crowd in it that talks at `rate`, then `act({ cluster, crowd, history })`, then the judgement of all
 * that was written down. Answers its counts. `HISTORY_DIR` is where the histories of failed tests go.
 */
export async function scenario(t, { rate = 60, crowd: cast, ...options } = {}, act) {
  const cluster = await Cluster.start(options);
  const crowd = new Crowd(cluster, cast);
  const { history } = crowd;
  let isFailed = true;
  try {
    await crowd.enter();
    crowd.talk(rate);
    await crowd.acked(Math.min(rate, 60));
    await act({ cluster, crowd, history, redis: cluster.redis });
    const late = await crowd.settle(t);
    const { faults, counts } = history.check();
    t.diagnostic(`${JSON.stringify(counts)} seed ${crowd.seed}`);
    assert.deepEqual(
      faults.map(({ rule, text }) => `${rule}: ${text}`),
      [],
      late.join('\n'),
    );
    assert.ok(counts.acked > 0 && counts.delivered > counts.acked, 'there was something to judge');
    isFailed = false;
    return { counts, history, crowd };
  } catch (error) {
    const path = join(
      process.env.HISTORY_DIR ?? mkdtempSync(join(tmpdir(), 'chat-history-')),
      `${fileName(t.name)}.jsonl`,
    );
    history.write(path);
    t.diagnostic(`${path}, seed ${crowd.seed}\n${cluster.logs()}`);
    throw error;
  } finally {
    await crowd.leave();
    await cluster.stop({ isFailed });
  }
}

const fileName = (name) => name.replace(/[^a-z0-9]+/gi, '-').slice(0, 60);
