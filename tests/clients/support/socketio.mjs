// Socket.IO v5 packets, only as far as a test must take a server's apart or build one.

const PLACEHOLDER = (value) => value?._placeholder === true;

/**
 * Takes the next Socket.IO packet of a `RawSocket`, attachments included:
 * `{ type, namespace, id, data }`, where `data` has the bytes in their places.
 */
export async function nextPacket(socket) {
  const text = await socket.next();
  const [, type, attachments, namespace, id, json] = /^4(\d)(?:(\d+)-)?(?:(\/[^,]*),)?(\d+)?(.*)$/s.exec(text) ?? [];
  if (type === undefined) throw new Error(`not a Socket.IO packet: ${text}`);
  const bytes = [];
  for (let n = 0; n < Number(attachments ?? 0); n++) bytes.push(await socket.next());
  const data = json ? JSON.parse(json, (_, value) => (PLACEHOLDER(value) ? bytes[value.num] : value)) : undefined;
  return { type: Number(type), namespace: namespace ?? '/', id, data };
}

export const placeholder = (num) => `{"_placeholder":true,"num":${num}}`;
