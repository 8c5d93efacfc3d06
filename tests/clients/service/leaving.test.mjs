// Promise: the ack of leave_room ends it: no event of the meeting comes after it, however busy the meeting is.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { LOGGED, as } from '../support/chat.mjs';
import { startService } from '../support/server.mjs';
import { WITH_USERS } from '../support/token.mjs';
import { ask } from '../support/wait.mjs';

const TALKERS = 12;
const MOVERS = 6;
/** Messages that each talker has on its way: so many that turns of the room wait for one another. */
const ON_THEIR_WAY = 3;
const LEAVES = 150;

let service;
before(async () => (service = await startService(WITH_USERS)));
after(() => service.stop());

test('nothing is heard of a meeting after the ack of leave_room', async (t) => {
  const meeting_id = 'busy';
  let talking = true;
  const talkers = await Promise.all(Array.from({ length: TALKERS }, (_, n) => as(t, service, `talker${n}`)));
  await Promise.all(talkers.map((talker) => ask(talker, 'join_room', { meeting_id })));
  const talk = talkers.flatMap((talker) =>
    Array.from({ length: ON_THEIR_WAY }, async () => {
      while (talking) assert.equal((await ask(talker, 'chat_message', { meeting_id, text: 'news' })).ok, true);
    }),
  );

  let heard = 0;
  const late = [];
  const move = Array.from({ length: MOVERS }, async (_, n) => {
    const mover = await as(t, service, `mover${n}`);
    let isIn = false;
    for (const name of LOGGED) mover.on(name, ({ seq }) => (isIn ? heard++ : late.push(seq)));
    // Set in the very callbacks: an awaited ack would come a moment later.
    const enter = () => new Promise((resolve) => mover.emit('join_room', { meeting_id }, () => resolve((isIn = true))));
    const leave = () =>
      new Promise((resolve) =>
        mover.emit('leave_room', { meeting_id }, (ack) => {
          isIn = false;
          resolve(ack);
        }),
      );
    for (let count = 0; count < LEAVES; count++) {
      await enter();
      await ask(mover, 'message', 1);
      assert.deepEqual(await leave(), { ok: true, meeting_id });
      await ask(mover, 'message', 2);
    }
  });
  try {
    await Promise.all(move);
  } finally {
    talking = false;
    await Promise.all(talk);
  }
  assert.ok(heard > 0, 'nothing was heard in the meeting either: this shows nothing');
  assert.deepEqual(late, []);
});
