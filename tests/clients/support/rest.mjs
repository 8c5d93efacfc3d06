// The HTTP side of the service: requests as a user or as a sibling service, and how its errors have to look.
import assert from 'node:assert/strict';

import { request } from './http.mjs';
import { tokenOf } from './jwt.mjs';

export const API = '/api/v1/chat';

/** The key of the sibling services. */
export const API_KEY = 'key-of-the-meeting-service-0123456789';

/** Settings of a service that takes `API_KEY`. */
export const WITH_KEY = { CHAT_API_KEY: API_KEY };

export class Rest {
  /** `headers` go with every request. */
  constructor(service, headers = {}) {
    this.service = service;
    this.headers = headers;
  }

  /** As `user`, with a token. */
  static user = (service, user, claims) => Rest.bearer(service, tokenOf(user, claims));
  static bearer = (service, token) => new Rest(service, { Authorization: `Bearer ${token}` });
  /** As a sibling service, with the key. */
  static sibling = (service, key = API_KEY) => new Rest(service, { 'X-API-Key': key });

  /** `path` is under the API's. A string is sent as it is, all else as JSON; an `undefined` header is not sent. */
  send(method, path, body, headers = {}) {
    const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
    const all = { ...(text === undefined ? {} : { 'Content-Type': 'application/json' }), ...this.headers, ...headers };
    const sent = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
    return request(this.service.url + API + path, { method, body: text, headers: sent });
  }

  get = (path, headers) => this.send('GET', path, undefined, headers);
  post = (path, body, headers) => this.send('POST', path, body, headers);
  put = (path, body, headers) => this.send('PUT', path, body, headers);
  patch = (path, body, headers) => this.send('PATCH', path, body, headers);
  delete = (path, headers) => this.send('DELETE', path, undefined, headers);

  /** Posts an update and expects it to be taken. */
  async update(update) {
    const answer = await this.post('/updates', update);
    assertStatus(answer, 202);
    return answer.json();
  }
}

export const messages = (meeting_id, id) =>
  `/meetings/${encodeURIComponent(meeting_id)}/messages${id === undefined ? '' : `/${id}`}`;

/** An answer of `status` in JSON, not to be kept by caches. */
export function assertStatus(answer, status) {
  const statuses = [status].flat();
  assert.ok(statuses.includes(answer.status), `expected ${statuses.join(' or ')}: ${answer.status} ${answer.text}`);
  assert.equal(answer.headers['cache-control'], 'no-store');
  assert.ok(answer.headers['x-request-id'], 'X-Request-Id');
  if (answer.text) assert.match(answer.headers['content-type'] ?? '', /^application\/json/);
  return answer;
}

const ERROR_FIELDS = ['code', 'message', 'retry_after_ms', 'details', 'request_id'];

/** An error of the contract's form; answers it. */
export function assertError(answer, status, code) {
  assertStatus(answer, status);
  const body = answer.json();
  assert.deepEqual(Object.keys(body), ['error'], answer.text);
  const { error } = body;
  if (code) assert.ok([code].flat().includes(error.code), `expected ${code}: ${answer.text}`);
  assert.ok(typeof error.message === 'string' && error.message.length > 0, 'an error has a message');
  assert.equal(error.request_id, answer.headers['x-request-id'], 'request_id of the error and of the answer');
  for (const field of Object.keys(error)) assert.ok(ERROR_FIELDS.includes(field), `unknown field ${field}`);
  if (error.retry_after_ms !== undefined) {
    assert.ok(Number.isInteger(error.retry_after_ms) && error.retry_after_ms >= 0, answer.text);
  }
  if (answer.status === 429 || answer.status === 503) {
    assert.match(answer.headers['retry-after'] ?? '', /^[1-9]\d*$/, 'Retry-After in whole seconds');
  }
  return error;
}
