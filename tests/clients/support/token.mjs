// Users: tokens as an auth service would issue them, and the settings of a server that believes them.
import { createHmac } from 'node:crypto';

/** The key that tests share with their server. */
export const SECRET = 'for-tests-only-0123456789abcdef0123';

/** Settings of a server where whoever has a token may write everywhere, unless the token names meetings. */
export const WITH_USERS = { AUTH_MODE: 'jwt', JWT_SECRET_KEY: SECRET, ROOM_POLICY: 'authenticated' };

const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A compact JWS of these claims, by HS256; good for an hour unless `exp` says otherwise. */
export function token(claims, secret = SECRET) {
  const now = Math.floor(Date.now() / 1000);
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ iat: now, exp: now + 3600, ...claims })}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}
