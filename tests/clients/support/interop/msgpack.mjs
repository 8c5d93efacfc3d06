// MessagePack as servers of Node read and write it: the adapter's own library.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

export const { encode, decode } = createRequire(require.resolve('@socket.io/redis-adapter'))('notepack.io');
