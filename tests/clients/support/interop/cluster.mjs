// Several instances of the service on one Redis.
import assert from 'node:assert/strict';

import { API, Rest, WITH_KEY } from '../rest.mjs';
import { startService } from '../server.mjs';
import { WITH_USERS, token } from '../token.mjs';
import { eventually } from '../wait.mjs';
import { startRedis } from './redis.mjs';

class Cluster {
  constructor(redis, settings) {
    this.redis = redis;
    this.settings = { ...WITH_USERS, ...WITH_KEY, REDIS_URL: redis.url, ...settings };
    this.services = [];
  }

  /** One more instance, connected to Redis; on a port that was another's if it is to take its place. */
  async add(settings = {}, port = undefined) {
    const service = await startService({ ...this.settings, ...settings }, port);
    this.services.push(service);
    await eventually(async () => {
      const { status, text } = await service.get(`${API}/ready`);
      assert.equal(status, 200, `${text}\n${service.log}`);
    });
    return service;
  }

  /** Kills all instances, as a power cut would. */
  async kill() {
    await Promise.all(this.services.splice(0).map((service) => service.kill()));
  }

  /** Kills one. */
  async killOne(service) {
    this.services.splice(this.services.indexOf(service), 1);
    await service.kill();
  }

  /** The end of a test file: every instance must have lived through it, without a panic. */
  async stop() {
    try {
      for (const service of this.services) await service.stop();
    } finally {
      await this.kill();
      await this.redis.stop();
    }
  }
}

/** `instances` of the service, all of them ready. */
export async function startCluster({ instances = 2, settings = {} } = {}) {
  const cluster = new Cluster(await startRedis(), settings);
  try {
    await Promise.all(Array.from({ length: instances }, () => cluster.add()));
  } catch (error) {
    await cluster.kill();
    await cluster.redis.stop();
    throw error;
  }
  return cluster;
}

/** The HTTP API of an instance as `user` sees it. */
export const asUser = (service, user, claims) => Rest.bearer(service, token({ sub: user, ...claims }));
