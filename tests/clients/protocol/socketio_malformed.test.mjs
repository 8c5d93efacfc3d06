// Promise: Socket.IO v5, what is not a packet closes the whole connection, and nothing else.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Polling, openSocketIo } from '../support/raw.mjs';
import { placeholder } from '../support/socketio.mjs';
import { WITHOUT_PINGS, startConformance } from '../support/server.mjs';

let server;
before(async () => (server = await startConformance('socketio', ...WITHOUT_PINGS)));
after(() => server.stop());

const bytes = Buffer.from([1]);
const EVENT = 'socket.io v5 § Sending and receiving data';
const ACK = 'socket.io v5 § Acknowledgement';
const FORMAT = 'socket.io v5 § Packet encoding / Format';
const BINARY = 'socket.io v5 § Packet encoding / Sending and receiving data';

const MALFORMED = [
  [FORMAT, 'no packet type', '4'],
  [FORMAT, 'unknown packet type', '47'],
  [FORMAT, 'unknown packet type', '49["message"]'],
  [FORMAT, 'a letter for a packet type', '4abc'],
  [FORMAT, 'a CONNECT_ERROR from a client', '44{"message":"x"}'],
  [FORMAT, 'a payload in a DISCONNECT', '41{"a":1}'],
  [FORMAT, 'a payload in a DISCONNECT', '41["x"]'],
  [EVENT, 'no payload', '42'],
  [EVENT, 'an id and no payload', '421'],
  [EVENT, 'an object for a payload', '42{}'],
  [EVENT, 'a string for a payload', '42"message"'],
  [EVENT, 'an empty array', '42[]'],
  [EVENT, 'null for a name', '42[null,1]'],
  [EVENT, 'an object for a name', '42[{},1]'],
  [EVENT, 'a boolean for a name', '42[true]'],
  [EVENT, 'an array for a name', '42[["message"]]'],
  [EVENT, 'JSON that does not end', '42["message"'],
  [EVENT, 'JSON with something behind it', '42["message",1]x'],
  [EVENT, 'two payloads', '42["message",1]["message",2]'],
  [EVENT, 'JSON with a comma too many', '42["message",]'],
  [EVENT, 'JSON with single quotes', "42['message']"],
  [EVENT, 'a raw line feed in a string', '42["message","\n"]'],
  [EVENT, 'not a number', '42["message",NaN]'],
  [EVENT, 'a leading zero', '42["message",01]'],
  [EVENT, 'the name of a client-side event', '42["connect"]'],
  [EVENT, 'the name of a client-side event', '42["connect_error"]'],
  [EVENT, 'the name of a client-side event', '42["disconnect"]'],
  [EVENT, 'the name of a client-side event', '42["disconnecting"]'],
  [EVENT, 'the name of a client-side event', '42["newListener"]'],
  [EVENT, 'the name of a client-side event', '421["removeListener","x"]'],
  [ACK, 'letters for an id', '42abc["message-with-ack",1]'],
  [ACK, 'a space for an id', '42 ["message-with-ack",1]'],
  [ACK, 'a space in an id', '421 2["message-with-ack",1]'],
  [ACK, 'a negative id', '42-1["message-with-ack",1]'],
  [ACK, 'an object for a payload', '431{}'],
  [ACK, 'no payload', '431'],
  [BINARY, 'no dash behind the count', `451["message",${placeholder(0)}]`],
  [BINARY, 'no count', `45-["message",${placeholder(0)}]`, bytes],
  [BINARY, 'a negative count', `45-1-["message",${placeholder(0)}]`, bytes],
  [BINARY, 'a fraction for a count', `451.5-["message",${placeholder(0)}]`, bytes],
  [BINARY, 'letters for a count', `45x-["message",${placeholder(0)}]`, bytes],
  [BINARY, 'a count beyond all bounds', `4599999999999999999999-["message",${placeholder(0)}]`],
  [BINARY, 'a placeholder past the attachments', `451-["message",${placeholder(1)}]`, bytes],
  [BINARY, 'a negative placeholder', `451-["message",${placeholder(-1)}]`, bytes],
  [BINARY, 'a fraction for a placeholder', `451-["message",${placeholder(0.5)}]`, bytes],
  [BINARY, 'a method for a placeholder', `451-["message",${placeholder('"splice"')}]`, bytes],
  [BINARY, 'a placeholder without a number', '451-["message",{"_placeholder":true}]', bytes],
  [BINARY, 'text where an attachment is due', `451-["message",${placeholder(0)}]`, '42["message",1]'],
  [BINARY, 'an attachment that nobody announced', bytes],
  [BINARY, 'an attachment too many', `451-["nobody listens",${placeholder(0)}]`, bytes, bytes],
  [BINARY, 'a name that is an attachment', `451-[${placeholder(0)}]`, bytes],
];

for (const [section, name, ...frames] of MALFORMED) {
  const shown = typeof frames[0] === 'string' ? frames[0].slice(0, 60) : 'bytes';
  test(`${section}: ${name} closes the connection: ${JSON.stringify(shown)}`, async (t) => {
    const [bad, other] = [await openSocketIo(t, server.url), await openSocketIo(t, server.url)];
    bad.send('40/custom,');
    await bad.next();
    await bad.next();
    bad.send(...frames);
    await bad.closed();
    other.send('42["message","unharmed"]');
    await other.expect('42["message-back","unharmed"]');
  });
}

test(`${FORMAT}: by polling, what is not a packet ends the session`, async () => {
  for (const packet of ['42{}', '4abc', '42[]', 'bAQID']) {
    const session = await Polling.open(server.url, '/socket.io/');
    await session.send('40');
    await session.receive(2);
    await session.post(packet);
    // The session may have one last answer: the close packet, with or without a noop.
    const answer = await session.get();
    assert.ok(answer.status === 400 || /^(6\x1e)?1$/.test(answer.text), `${packet}: ${answer.status} ${answer.text}`);
    await session.assertGone(packet);
  }
});

test(`${EVENT}: JSON nested without end neither crashes the server nor comes back`, async (t) => {
  for (const nest of ['[', '{"a":']) {
    const socket = await openSocketIo(t, server.url);
    socket.send(`42["message",${nest.repeat(100_000)}`);
    await socket.closed();
  }
  const deep = await openSocketIo(t, server.url);
  deep.send(`42["message",${'['.repeat(100_000)}${']'.repeat(100_000)}]`);
  deep.frames = [];
  const other = await openSocketIo(t, server.url);
  other.send('42["message","unharmed"]');
  await other.expect('42["message-back","unharmed"]');
});
