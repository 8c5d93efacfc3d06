// Promise: Socket.IO v5, events, acknowledgements and bytes, in both directions.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Polling, SEPARATOR, openSocketIo } from '../support/raw.mjs';
import { nextPacket, placeholder } from '../support/socketio.mjs';
import { startConformance } from '../support/server.mjs';

let server;
before(async () => (server = await startConformance('socketio')));
after(() => server.stop());

const open = (t) => openSocketIo(t, server.url);

test('socket.io v5 § Sending and receiving data: arguments of every JSON type', async (t) => {
  const socket = await open(t);
  const values = '1,"2",{"3":[true]},null,-0.5,[],{},"é漢字😀","\\u001e"';
  socket.send(`42["message",${values}]`);
  assert.deepEqual((await nextPacket(socket)).data, ['message-back', ...JSON.parse(`[${values}]`)]);
});

test('socket.io v5 § Sending and receiving data: an event without arguments', async (t) => {
  const socket = await open(t);
  socket.send('42["message"]');
  await socket.expect('42["message-back"]');
});

test('socket.io v5 § Sending and receiving data: a number is a name too, and nobody listens to it', async (t) => {
  const socket = await open(t);
  socket.send('42[1,"x"]', '42["nobody listens"]', '42["message","alive"]');
  await socket.expect('42["message-back","alive"]');
});

test('socket.io v5 § Sending and receiving data: an event of a custom namespace is one of that namespace only', async (t) => {
  const socket = await open(t);
  socket.send('40/custom,');
  await nextPacket(socket);
  await nextPacket(socket);
  socket.send('42/custom,["nobody listens",1]', '42["message","alive"]');
  const { namespace, data } = await nextPacket(socket);
  assert.deepEqual([namespace, data], ['/', ['message-back', 'alive']]);
});

test('socket.io v5 § Sending and receiving data: a thousand events come back in order', async (t) => {
  const socket = await open(t);
  for (let n = 0; n < 1000; n++) socket.send(`42["message",${n}]`);
  for (let n = 0; n < 1000; n++) await socket.expect(`42["message-back",${n}]`);
});

test('socket.io v5 § Sending and receiving data: by polling, several in one payload', async () => {
  const session = await Polling.open(server.url, '/socket.io/');
  await session.send('40');
  await session.receive(2);
  await session.send('42["message",1]', '42["message",2]', '423["message-with-ack",3]');
  assert.deepEqual(await session.receive(3), ['42["message-back",1]', '42["message-back",2]', '433[3]']);
});

describe('acknowledgements', () => {
  test('socket.io v5 § Acknowledgement: carries the id of the event', async (t) => {
    const socket = await open(t);
    for (const id of ['0', '1', '456', '4294967296', '9007199254740991']) {
      socket.send(`42${id}["message-with-ack",1,"2",{"3":[false]}]`);
      await socket.expect(`43${id}[1,"2",{"3":[false]}]`);
    }
  });

  test('socket.io v5 § Acknowledgement: an id that no double can hold is not rounded', async (t) => {
    const socket = await open(t);
    for (const id of ['9007199254740993', '18446744073709551615']) {
      socket.send(`42${id}["message-with-ack"]`);
      await socket.expect(`43${id}[]`);
    }
  });

  test('socket.io v5 § Acknowledgement: an id beyond 64 bits closes the connection', async (t) => {
    const socket = await open(t);
    socket.send('4218446744073709551616["message-with-ack"]');
    await socket.closed();
  });

  test('socket.io v5 § Acknowledgement: may be empty', async (t) => {
    const socket = await open(t);
    socket.send('421["message-with-ack"]');
    await socket.expect('431[]');
  });

  test('socket.io v5 § Acknowledgement: of an event that needs none is not made up', async (t) => {
    const socket = await open(t);
    socket.send('42["message-with-ack",1]', '42["message","next"]');
    // Whether the server's handler may answer an event that asked for nothing is its own affair; nothing is sent.
    await socket.expect('42["message-back","next"]');
  });

  test('socket.io v5 § Acknowledgement: the server asks for one, and uses it', async (t) => {
    const socket = await open(t);
    socket.send('42["emit-with-ack","a",1]');
    const asked = await nextPacket(socket);
    assert.deepEqual([asked.type, asked.data], [2, ['emit-with-ack', 'a', 1]]);
    assert.match(asked.id ?? '', /^\d+$/);
    socket.send(`43${asked.id}["b",2]`);
    assert.deepEqual(await nextPacket(socket), { ...asked, id: undefined, data: ['emit-with-ack', 'b', 2] });
  });

  test('socket.io v5 § Acknowledgement: many that the server asked for may come in any order', async (t) => {
    const socket = await open(t);
    const asked = [];
    for (let n = 0; n < 20; n++) {
      socket.send(`42["emit-with-ack",${n}]`);
      asked.push((await nextPacket(socket)).id);
    }
    assert.equal(new Set(asked).size, 20);
    for (const [n, id] of [...asked.entries()].reverse()) {
      socket.send(`43${id}["answer ${n}"]`);
      await socket.expect(`42["emit-with-ack","answer ${n}"]`);
    }
  });

  test('socket.io v5 § Acknowledgement: counts once', async (t) => {
    const socket = await open(t);
    socket.send('42["emit-with-ack","x"]');
    const { id } = await nextPacket(socket);
    socket.send(`43${id}["first"]`, `43${id}["second"]`, '42["message","next"]');
    await socket.expect('42["emit-with-ack","first"]', '42["message-back","next"]');
  });

  test('socket.io v5 § Acknowledgement: one that nobody asked for is ignored', async (t) => {
    const socket = await open(t);
    socket.send('4399["x"]', '43["no id"]', '4318446744073709551615[]', '42["message","next"]');
    await socket.expect('42["message-back","next"]');
  });

  test('socket.io v5 § Acknowledgement: of one client is not that of another', async (t) => {
    const [a, b] = [await open(t), await open(t)];
    a.send('42["emit-with-ack","a"]');
    const { id } = await nextPacket(a);
    b.send(`43${id}["stolen"]`, '42["message","next"]');
    await b.expect('42["message-back","next"]');
    a.send(`43${id}["own"]`);
    await a.expect('42["emit-with-ack","own"]');
  });
});

describe('bytes', () => {
  const send = async (socket, text, ...bytes) => {
    socket.send(text, ...bytes.map((list) => Buffer.from(list)));
    return nextPacket(socket);
  };

  test('socket.io v5 § Packet encoding / Sending and receiving data: an event with one attachment', async (t) => {
    const socket = await open(t);
    socket.send(`451-["message",${placeholder(0)}]`, Buffer.from([1, 2, 3, 4]));
    await socket.expect(`451-["message-back",${placeholder(0)}]`, Buffer.from([1, 2, 3, 4]));
  });

  test('socket.io v5 § Packet encoding / Sending and receiving data: several attachments, in their places', async (t) => {
    const socket = await open(t);
    const { type, data } = await send(
      socket,
      `453-["message",${placeholder(1)},{"a":[${placeholder(0)},"x"]},${placeholder(2)}]`,
      [1],
      [2, 2],
      [],
    );
    assert.equal(type, 5);
    assert.deepEqual(data, ['message-back', Buffer.from([2, 2]), { a: [Buffer.from([1]), 'x'] }, Buffer.from([])]);
  });

  test('socket.io v5 § Packet encoding / Sending and receiving data: one attachment in two places', async (t) => {
    const { data } = await send(await open(t), `451-["message",${placeholder(0)},${placeholder(0)}]`, [7]);
    assert.deepEqual(data, ['message-back', Buffer.from([7]), Buffer.from([7])]);
  });

  test('socket.io v5 § Packet encoding / Sending and receiving data: an attachment without a place is dropped', async (t) => {
    const socket = await open(t);
    const { data } = await send(socket, `452-["message",${placeholder(1)}]`, [1], [2]);
    assert.deepEqual(data, ['message-back', Buffer.from([2])]);
    socket.send('42["message","next"]');
    await socket.expect('42["message-back","next"]');
  });

  test('socket.io v5 § Packet encoding / Sending and receiving data: none declared is a complete packet', async (t) => {
    const socket = await open(t);
    assert.deepEqual((await send(socket, '450-["message",1]')).data, ['message-back', 1]);
    socket.send('42["message","next"]');
    await socket.expect('42["message-back","next"]');
  });

  test('socket.io v5 § Packet encoding / Sending and receiving data: a placeholder in a packet of text is text', async (t) => {
    const socket = await open(t);
    socket.send(`42["message",${placeholder(0)}]`);
    await socket.expect(`42["message-back",${placeholder(0)}]`);
  });

  test('socket.io v5 § Packet encoding / Sending and receiving data: ten attachments pass, eleven close the connection', async (t) => {
    const socket = await open(t);
    const places = (count) => Array.from({ length: count }, (_, n) => placeholder(n)).join();
    const { data } = await send(socket, `4510-["message",${places(10)}]`, ...Array.from({ length: 10 }, (_, n) => [n]));
    assert.deepEqual(
      data.slice(1).map((bytes) => bytes[0]),
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    );
    socket.send(`4511-["message",${places(11)}]`);
    await socket.closed();
  });

  test('socket.io v5 § Packet encoding / Acknowledgement: with bytes, to the client', async (t) => {
    const socket = await open(t);
    socket.send(`452-789["message-with-ack",${placeholder(0)},${placeholder(1)}]`, Buffer.from([1]), Buffer.from([2]));
    await socket.expect(`462-789[${placeholder(0)},${placeholder(1)}]`, Buffer.from([1]), Buffer.from([2]));
  });

  test('socket.io v5 § Packet encoding / Acknowledgement: with bytes, to the server', async (t) => {
    const socket = await open(t);
    socket.send('42["emit-with-ack","x"]');
    const { id } = await nextPacket(socket);
    const { type, data } = await send(socket, `461-${id}["answer",${placeholder(0)}]`, [1, 2]);
    assert.deepEqual([type, data], [5, ['emit-with-ack', 'answer', Buffer.from([1, 2])]]);
  });

  test('socket.io v5 § Packet encoding / Acknowledgement: the server asks with bytes', async (t) => {
    const socket = await open(t);
    const { type, id, data } = await send(socket, `451-["emit-with-ack",${placeholder(0)}]`, [9]);
    assert.deepEqual([type, data], [5, ['emit-with-ack', Buffer.from([9])]]);
    assert.match(id, /^\d+$/);
    socket.send(`43${id}["thanks"]`);
    await socket.expect('42["emit-with-ack","thanks"]');
  });

  test('socket.io v5 § Packet encoding / Sending and receiving data: by polling, base64 behind its packet', async () => {
    const session = await Polling.open(server.url, '/socket.io/');
    await session.send('40');
    await session.receive(2);
    await session.send(`451-["message",${placeholder(0)}]`, 'bAQIDBA==', '42["message","next"]');
    const packets = await session.receive(3);
    assert.equal(
      packets.join(SEPARATOR),
      [`451-["message-back",${placeholder(0)}]`, 'bAQIDBA==', '42["message-back","next"]'].join(SEPARATOR),
    );
  });

  test('socket.io v5 § Packet encoding / Sending and receiving data: by polling, attachments may come in later POSTs', async () => {
    const session = await Polling.open(server.url, '/socket.io/');
    await session.send('40');
    await session.receive(2);
    await session.send(`452-["message",${placeholder(0)},${placeholder(1)}]`);
    await session.send('bAQ==');
    await session.send('bAg==');
    assert.deepEqual(await session.receive(3), [
      `452-["message-back",${placeholder(0)},${placeholder(1)}]`,
      'bAQ==',
      'bAg==',
    ]);
  });

  test('socket.io v5 § Sending and receiving data: the heartbeat may come between attachments', async (t) => {
    const socket = await openSocketIo(t, server.url, { pong: false });
    socket.send(`452-["message",${placeholder(0)},${placeholder(1)}]`, Buffer.from([1]));
    await socket.expect('2');
    socket.send('3', Buffer.from([2]));
    assert.deepEqual((await nextPacket(socket)).data, ['message-back', Buffer.from([1]), Buffer.from([2])]);
  });

  test('socket.io v5 § Difference between v3 and v2: bytes travel as attachments of a BINARY_EVENT', async (t) => {
    const { type } = await send(await open(t), `451-["message",${placeholder(0)}]`, [0x93, 0xa1, 0x78]);
    assert.equal(type, 5);
  });

  test('socket.io v5 § Difference between v4 and v3: an acknowledgement with bytes is a BINARY_ACK', async (t) => {
    const { type, id } = await send(await open(t), `451-5["message-with-ack",${placeholder(0)}]`, [1]);
    assert.deepEqual([type, id], [6, '5']);
  });

  test('socket.io v5 § Difference between v2 and v1: BINARY_EVENT is packet type 5', async (t) => {
    const socket = await open(t);
    socket.send(`451-["message",${placeholder(0)}]`, Buffer.from([1]));
    assert.match(await socket.next(), /^45/);
  });
});

test('socket.io v5 § Packet encoding / Format: namespace, id and payload stand in their order', async (t) => {
  const socket = await open(t);
  socket.send('42/,7["message-with-ack","main by name"]');
  await socket.expect('437["main by name"]');
  socket.send('40/custom,{"a":1}');
  assert.match(await socket.next(), /^40\/custom,\{"sid":"[^"]+"\}$/);
  await socket.expect('42/custom,["auth",{"a":1}]');
});

test('socket.io v5 § Packet encoding / Connection to a namespace: encoded as the text shows it', async (t) => {
  const socket = await open(t);
  socket.send('40/custom,', '40/nowhere,');
  assert.match(await socket.next(), /^40\/custom,\{"sid":"[^"]+"\}$/);
  await socket.expect('42/custom,["auth",{}]', '44/nowhere,{"message":"Invalid namespace"}');
});

test('socket.io v5 § Packet encoding / Disconnection from a namespace: 1 and 1/custom, are understood', async (t) => {
  const socket = await open(t);
  socket.send('40/custom,');
  await nextPacket(socket);
  await nextPacket(socket);
  socket.send('41/custom,', '41', '40');
  assert.match(await socket.next(), /^40\{"sid"/);
});
