// Counters of what comes in through Redis.

/** Messages that a service could not read and dropped, pickles included. */
export const unreadable = async (service) => (await service.metrics()).value('chat_redis_unreadable_total');

/** Pickles that it refused. */
export const pickles = async (service) => (await service.metrics()).value('chat_redis_pickles_total');
