//! Token buckets, strikes and places: how much of what one may do.
//!
//! Nothing here knows what is limited, or what a refusal looks like: callers say a [`Rate`], an amount and the time.
//!
//! `now` is in ms since the Unix epoch, or since any other moment, if it is always the same one for the same state. A
//! clock that is put back locks nobody out: a state that is further ahead of the clock than the limit itself can bring
//! it is not believed.
//!
//! Start at [`Bucket`]; [`ByAddress`] is the only type here that grows, and says how far.

use std::{
    collections::{HashMap, VecDeque, hash_map},
    net::IpAddr,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Tokens that come back in a second. 0: the bucket is off, and refuses nothing.
    pub per_s: u32,
    /// Tokens of a full bucket, which is what may be taken at once. 0 counts as 1.
    pub burst: u32,
}

impl Rate {
    /// No limit.
    pub const OFF: Self = Self { per_s: 0, burst: 0 };

    /// How long `tokens` take to come back, in ns. Not for a rate that is off.
    fn time_ns(self, tokens: u32) -> u64 {
        // 2^32 * 10^9 fits. Rounded down, so that exactly `burst` single tokens fit into a full bucket.
        u64::from(tokens) * NS_PER_S / u64::from(self.per_s.max(1))
    }

    fn capacity_ns(self) -> u64 {
        self.time_ns(self.burst.max(1))
    }
}

/// So many slots, each taken until it is given back.
#[derive(Debug)]
pub struct Slots {
    taken: Arc<AtomicUsize>,
    max: usize,
}

/// A taken slot: given back when it is dropped.
#[derive(Debug)]
pub struct Slot(Arc<AtomicUsize>);

impl Slots {
    /// `max` slots.
    pub fn new(max: usize) -> Self {
        Self { taken: Arc::default(), max }
    }

    /// Takes a slot, if there is one.
    pub fn take(&self) -> Option<Slot> {
        let take = |taken| (taken < self.max).then_some(taken + 1);
        // ORDERING: Relaxed, here and below. A limit: nothing is read because of it.
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Slot(Arc::clone(&self.taken)))
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A token bucket in eight bytes, full at first.
///
/// Kept as one moment, as in the generic cell rate algorithm (ITU-T I.371): the time at which the bucket will be full
/// again. The rate is not kept; always give the same one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket {
    /// In ns, on the clock of `now`. In the past: full.
    full_at: u64,
}

const _: () = assert!(size_of::<Bucket>() == 8);

impl Bucket {
    /// Takes `amount` tokens. More than the bucket can hold count as all that it can hold.
    ///
    /// # Errors
    /// There are not so many: how many ms, at least 1, until there will be. Nothing was taken.
    pub fn take(&mut self, rate: Rate, amount: u32, now: u64) -> Result<(), u32> {
        self.full_at = take(self.full_at, rate, amount, now)?;
        Ok(())
    }

    /// Whether nothing is missing, so that the bucket can as well be forgotten.
    pub fn is_full(&self, rate: Rate, now: u64) -> bool {
        rate.per_s == 0 || self.full_at <= ns(now)
    }
}

/// A [`Bucket`] that several threads use at once, without a lock.
#[derive(Debug, Default)]
pub struct SharedBucket {
    full_at: AtomicU64,
}

impl SharedBucket {
    /// As [`Bucket::take`].
    ///
    /// # Errors
    /// As there.
    pub fn take(&self, rate: Rate, amount: u32, now: u64) -> Result<(), u32> {
        self.update(|full_at| take(full_at, rate, amount, now))
    }

    /// As [`Bucket::is_full`].
    pub fn is_full(&self, rate: Rate, now: u64) -> bool {
        // ORDERING: Relaxed, as in `update`.
        Bucket { full_at: self.full_at.load(Ordering::Relaxed) }.is_full(rate, now)
    }

    /// Takes `amount` tokens, which are used already, whether they are there or not. Returns for how many ms nothing more
    /// must be used: until the bucket owes nothing, at most [`DEBT_MAX_MS`]. 0: go on.
    ///
    /// What was not taken because of that bound is forgiven. For a bucket that is not asked by [`take`](Self::take).
    pub fn spend(&self, rate: Rate, amount: u32, now: u64) -> u32 {
        let mut wait_ns = 0;
        let spent = self.update(|full_at| {
            let after;
            (after, wait_ns) = spend(full_at, rate, amount, now);
            Ok(after)
        });
        spent.map_or(0, |()| ms_rounded_up(wait_ns))
    }

    fn update(&self, mut step: impl FnMut(u64) -> Result<u64, u32>) -> Result<(), u32> {
        // ORDERING: Relaxed. The one number is all there is: nothing else is published or read by it.
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let after = step(full_at)?;
            if after == full_at {
                return Ok(());
            }
            match self.full_at.compare_exchange_weak(full_at, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(current) => full_at = current,
            }
        }
    }
}

/// The longest that [`SharedBucket::spend`] makes anybody wait, in ms.
pub const DEBT_MAX_MS: u32 = 10_000;

/// The next `full_at`, or how long to wait, in ms.
fn take(full_at: u64, rate: Rate, amount: u32, now: u64) -> Result<u64, u32> {
    if rate.per_s == 0 {
        return Ok(full_at);
    }
    let (now, capacity) = (ns(now), rate.capacity_ns());
    let missing = missing_ns(full_at, now, capacity);
    let wanted = missing + rate.time_ns(amount).min(capacity);
    if wanted > capacity {
        return Err(ms_rounded_up(wanted - capacity));
    }
    Ok(now.saturating_add(wanted))
}

/// The next `full_at`, and for how long something is owed, in ns.
fn spend(full_at: u64, rate: Rate, amount: u32, now: u64) -> (u64, u64) {
    if rate.per_s == 0 {
        return (full_at, 0);
    }
    let (now, capacity) = (ns(now), rate.capacity_ns());
    let most = capacity.saturating_add(u64::from(DEBT_MAX_MS) * NS_PER_MS);
    let missing = missing_ns(full_at, now, most).saturating_add(rate.time_ns(amount)).min(most);
    (now.saturating_add(missing), missing.saturating_sub(capacity))
}

/// How far from full, in time. More than can be: the clock was put back since, and the bucket counts as full. (As empty
/// it could not: a refusal changes nothing, so it would be found empty again until the clock has caught up.)
fn missing_ns(full_at: u64, now: u64, most: u64) -> u64 {
    let missing = full_at.saturating_sub(now);
    if missing > most { 0 } else { missing }
}

const NS_PER_S: u64 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// Ends in the year 2554, from when on all times are the same and every bucket is full.
fn ns(ms: u64) -> u64 {
    ms.saturating_mul(NS_PER_MS)
}

fn ms_rounded_up(ns: u64) -> u32 {
    u32::try_from(ns.div_ceil(NS_PER_MS)).unwrap_or(u32::MAX)
}

/// How many refusals are too many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StrikeLimits {
    /// So many in a window are tolerated; one more is not. 0: the limit is off.
    pub max: u32,
    /// How long the window is, in ms. It slides: a strike counts for so long, and then no more.
    pub window_ms: u64,
}

/// The refusals of one client, counted exactly.
///
/// Eight bytes until the first one; then the times of those that still count, never more than [`StrikeLimits::max`],
/// eight bytes each. That is a list and not a bucket because a bucket would also let go of 200 at once and then of one
/// every 300 ms, which is twice as many in the first window.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "hardly anybody has a strike, and a queue alone is 32 bytes")]
pub struct Strikes(Option<Box<VecDeque<u64>>>);

impl Strikes {
    /// Counts one, and says whether there are now more than are tolerated.
    pub fn strike(&mut self, limits: StrikeLimits, now: u64) -> bool {
        let max = limits.max as usize;
        if max == 0 {
            return false;
        }
        let times = self.0.get_or_insert_default();
        // The clock was put back. From now on these count as long as one of this moment.
        for time in times.iter_mut().rev().take_while(|time| **time > now) {
            *time = now;
        }
        while times.front().is_some_and(|time| now - *time >= limits.window_ms) {
            times.pop_front();
        }
        let is_over = times.len() >= max;
        // The oldest of too many decides nothing any more: whatever comes later, the younger ones do.
        while times.len() >= max {
            times.pop_front();
        }
        // What one bad minute took is given back at the first strike of a better one.
        if times.capacity() > KEEP_STRIKES && times.len() < times.capacity() / 4 {
            times.shrink_to(KEEP_STRIKES);
        }
        times.push_back(now);
        is_over
    }
}

/// Room for this many strikes is kept between two of them.
const KEEP_STRIKES: usize = 16;

/// What one network address may have. An IPv6 address stands for its /64, which is what one customer is given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Address(NonZeroU64);

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        let bits = match address.to_canonical() {
            // Beside the IPv6 networks 0:1::/32, which nobody has.
            IpAddr::V4(address) => 1 << 32 | u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        // ::/64, with ::1 in it, shares with its unused neighbour.
        Self(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }
}

/// Limits for each address by itself.
///
/// Knows at most [`ADDRESSES_MAX`] addresses, about 3 MiB. One that has nothing and whose bucket is full again is
/// forgotten sooner or later. If all of them are in use, a new one is not refused for that: its places are not counted,
/// and newcomers share one bucket of [`OVERFLOW_FACTOR`] times the rate. Closing the door instead would hand it to whoever
/// has many addresses.
#[derive(Debug)]
pub struct ByAddress {
    limits: AddressLimits,
    table: Mutex<Table>,
}

/// What each address may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressLimits {
    /// Places at a time. 0: any number, uncounted.
    pub places: u32,
    /// How fast places may be taken, whether or not they are given back.
    pub rate: Rate,
}

/// Why there is no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The address has as many as it may.
    NoPlace,
    /// Too fast: to be tried again after so many ms, at least 1.
    TooFast(u32),
}

/// A place that is given back when this is dropped, unless it is [kept](Self::keep).
#[derive(Debug)]
#[must_use = "the place is free again when this is dropped"]
pub struct Place<'a> {
    limiter: &'a ByAddress,
    address: Option<Address>,
}

/// Addresses that are known at a time.
pub const ADDRESSES_MAX: usize = 65_536;
/// How many addresses' worth of rate the addresses share that find no room.
pub const OVERFLOW_FACTOR: u32 = 100;
/// Below this many addresses none are looked for that can be forgotten.
const SWEEP_MIN: usize = 1024;
/// Looking for some in a full table goes through all of it, so it is done once in so many ms.
const SWEEP_PAUSE_MS: u64 = 1000;

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Address, Entry>,
    /// With so many entries, idle ones are looked for.
    sweep_at: usize,
    swept_at_ms: u64,
    overflow: Bucket,
}

#[derive(Debug, Default)]
struct Entry {
    bucket: Bucket,
    places: u32,
}

impl ByAddress {
    /// Nobody has anything yet.
    pub fn new(limits: AddressLimits) -> Self {
        Self { limits, table: Mutex::default() }
    }

    /// Takes a place. Nobody else's limit is touched.
    ///
    /// # Errors
    /// The address has too many, or takes them too fast. A refusal costs nothing.
    pub fn enter(&self, address: Address, now: u64) -> Result<Place<'_>, Refused> {
        let AddressLimits { places, rate } = self.limits;
        let place = |address| Ok(Place { limiter: self, address });
        if places == 0 && rate.per_s == 0 {
            return place(None);
        }
        let mut table = self.table();
        table.sweep(rate, now);
        let is_full = table.entries.len() >= ADDRESSES_MAX;
        let entry = match table.entries.entry(address) {
            hash_map::Entry::Vacant(_) if is_full => {
                let Rate { per_s, burst } = rate;
                let [per_s, burst] = [per_s, burst].map(|one| one.saturating_mul(OVERFLOW_FACTOR));
                return match table.overflow.take(Rate { per_s, burst }, 1, now) {
                    Ok(()) => place(None),
                    Err(retry_after_ms) => Err(Refused::TooFast(retry_after_ms)),
                };
            }
            entry => entry.or_default(),
        };
        if places > 0 && entry.places >= places {
            return Err(Refused::NoPlace);
        }
        entry.bucket.take(rate, 1, now).map_err(Refused::TooFast)?;
        if places == 0 {
            return place(None);
        }
        entry.places += 1;
        place(Some(address))
    }

    /// Gives back a place that was [kept](Place::keep).
    pub fn leave(&self, address: Address) {
        let mut table = self.table();
        if let hash_map::Entry::Occupied(mut entry) = table.entries.entry(address) {
            let places = &mut entry.get_mut().places;
            *places = places.saturating_sub(1);
            // With a rate there may be a bucket to remember; the next sweep knows.
            if *places == 0 && self.limits.rate.per_s == 0 {
                entry.remove();
            }
        }
    }

    /// Addresses that are known.
    pub fn len(&self) -> usize {
        self.table().entries.len()
    }

    /// Whether no address is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing that can panic runs between two changes that belong together.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Makes room, if there are many more entries than there were needed ones when this last looked.
    fn sweep(&mut self, rate: Rate, now: u64) {
        if self.entries.len() < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        let is_full = self.entries.len() >= ADDRESSES_MAX;
        if is_full && now.abs_diff(self.swept_at_ms) < SWEEP_PAUSE_MS {
            return;
        }
        self.entries.retain(|_, entry| entry.places > 0 || !entry.bucket.is_full(rate, now));
        self.swept_at_ms = now;
        self.sweep_at = (self.entries.len() * 2).min(ADDRESSES_MAX);
        // A wave of addresses is not to leave its table behind for good.
        self.entries.shrink_to(self.sweep_at.max(SWEEP_MIN));
    }
}

impl Place<'_> {
    /// Keeps the place, to be given back to [`ByAddress::leave`]. `None`: it was not counted, and there is nothing to give
    /// back.
    pub fn keep(mut self) -> Option<Address> {
        self.address.take()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(address) = self.address.take() {
            self.limiter.leave(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Barrier, atomic::AtomicU32},
        thread,
    };

    use super::*;

    /// Some day in 2023, in ms.
    const DAY: u64 = 1_700_000_000_000;
    const HOUR_MS: u64 = 3_600_000;

    fn rate(per_s: u32, burst: u32) -> Rate {
        Rate { per_s, burst }
    }

    #[test]
    fn a_full_bucket_holds_its_burst_and_not_one_more() {
        let cases = [(5, 20), (1, 1), (3, 3), (7, 1000), (20, 100), (50, 200), (1000, 7), (131_072, 5000)];
        for (per_s, burst) in cases {
            let (rate, mut bucket) = (rate(per_s, burst), Bucket::default());
            for taken in 0..burst {
                assert_eq!(bucket.take(rate, 1, DAY), Ok(()), "{rate:?}, token {taken}");
            }
            let retry_after_ms = bucket.take(rate, 1, DAY).unwrap_err();
            assert_eq!(retry_after_ms, 1000_u32.div_ceil(per_s), "{rate:?}");
        }
    }

    #[test]
    fn what_a_refusal_says_is_right_to_the_ms() {
        for (per_s, burst, amount) in [(5, 20, 1), (5, 20, 20), (3, 7, 2), (131_072, 524_288, 65_536), (1, 1, 1)] {
            let (rate, mut bucket) = (rate(per_s, burst), Bucket::default());
            let mut now = DAY;
            for _ in 0..50 {
                let Err(retry_after_ms) = bucket.take(rate, amount, now) else { continue };
                let before = bucket;
                if retry_after_ms > 1 {
                    let too_early = bucket.take(rate, amount, now + u64::from(retry_after_ms) - 1);
                    assert_eq!(too_early, Err(1), "{rate:?}");
                }
                assert_eq!(bucket, before, "a refusal costs nothing");
                now += u64::from(retry_after_ms);
                assert_eq!(bucket.take(rate, amount, now), Ok(()), "{rate:?} after {retry_after_ms} ms");
            }
            assert!(now > DAY, "{rate:?} was never empty");
        }
    }

    #[test]
    fn in_the_long_run_it_is_the_rate() {
        for (per_s, burst, amount) in [(5, 20, 1), (50, 100, 1), (131_072, 524_288, 999), (2, 5, 1), (333, 3, 1)] {
            let (rate, mut bucket) = (rate(per_s, burst), Bucket::default());
            let mut taken = 0;
            for ms in 0..60_000 {
                while bucket.take(rate, amount, DAY + ms) == Ok(()) {
                    taken += u64::from(amount);
                }
            }
            let expected = u64::from(burst) + 60 * u64::from(per_s);
            assert!(taken.abs_diff(expected) <= expected / 100 + u64::from(amount), "{rate:?}: {taken} of {expected}");
        }
    }

    #[test]
    fn a_rate_of_zero_is_off_and_a_burst_of_zero_is_one() {
        let (mut bucket, shared) = (Bucket::default(), SharedBucket::default());
        for _ in 0..1000 {
            assert_eq!(bucket.take(Rate::OFF, u32::MAX, DAY), Ok(()));
            assert_eq!(shared.take(Rate::OFF, u32::MAX, DAY), Ok(()));
            assert_eq!(shared.spend(Rate::OFF, u32::MAX, DAY), 0);
        }
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(rate(10, 0), 1, DAY), Ok(()));
        assert_eq!(bucket.take(rate(10, 0), 1, DAY), Err(100));
    }

    #[test]
    fn more_than_fits_counts_as_all_that_fits() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(rate(10, 20), u32::MAX, DAY), Ok(()));
        assert_eq!(bucket.take(rate(10, 20), 1, DAY), Err(100));
        assert_eq!(bucket.take(rate(10, 20), 1000, DAY), Err(2000));
        assert_eq!(bucket.take(rate(10, 20), 1000, DAY + 2000), Ok(()));
    }

    #[test]
    fn a_clock_that_is_put_back_locks_nobody_out() {
        let rate = rate(5, 20);
        let back = DAY - HOUR_MS;
        for spent in [1, 19, 20] {
            let mut bucket = Bucket::default();
            assert_eq!(bucket.take(rate, spent, DAY), Ok(()));
            let shared = SharedBucket { full_at: bucket.full_at.into() };
            assert_eq!(bucket.take(rate, 20, back), Ok(()), "full");
            assert_eq!(bucket.take(rate, 1, back), Err(200), "and no fuller than that");
            assert_eq!(bucket.take(rate, 1, back + 200), Ok(()));
            assert_eq!(shared.spend(rate, 20, back), 0);
            assert_eq!(shared.spend(rate, 1, back), 200);
        }
        // A little back: as much longer.
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(rate, 18, DAY), Ok(()));
        assert_eq!(bucket.take(rate, 1, DAY - 300), Err(100));
        assert_eq!(bucket.take(rate, 1, DAY - 200), Ok(()));
    }

    #[test]
    fn no_number_is_too_large() {
        let numbers = [0, 1, 2, 1000, u64::from(u32::MAX), DAY, u64::MAX / NS_PER_MS, u64::MAX - 1, u64::MAX];
        let amounts = [0, 1, u32::MAX];
        for (per_s, burst) in [(0, 0), (1, u32::MAX), (u32::MAX, 1), (u32::MAX, u32::MAX), (1, 0)] {
            let rate = rate(per_s, burst);
            let (mut bucket, shared) = (Bucket::default(), SharedBucket::default());
            for now in numbers.into_iter().chain(numbers.into_iter().rev()) {
                for amount in amounts {
                    assert_ne!(bucket.take(rate, amount, now), Err(0));
                    assert_ne!(shared.take(rate, amount, now), Err(0));
                    assert!(shared.spend(rate, amount, now) <= DEBT_MAX_MS);
                }
            }
        }
    }

    #[test]
    fn what_is_spent_beyond_the_bucket_is_waited_for() {
        let (rate, bucket) = (rate(1000, 500), SharedBucket::default());
        let cases = [
            ("half", 250, 0, 0),
            ("the rest", 250, 0, 0),
            ("one more", 1, 0, 1),
            ("again", 100, 0, 101),
            ("nothing, later", 0, 100, 1),
            ("nothing, when it is over", 0, 101, 0),
            ("much", 5000, 101, 5000),
            ("too much: the rest is forgiven", 50_000, 101, DEBT_MAX_MS),
            ("a second later", 0, 1101, DEBT_MAX_MS - 1000),
            ("full again", 500, 101 + 10_500, 0),
        ];
        for (name, amount, ms, expected) in cases {
            assert_eq!(bucket.spend(rate, amount, DAY + ms), expected, "{name}");
        }
    }

    #[test]
    fn threads_together_get_what_one_would() {
        let (rate, bucket) = (rate(10, 5_000_000), SharedBucket::default());
        let (taken, start) = (AtomicU32::new(0), Barrier::new(4));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    while bucket.take(rate, 1, DAY).is_ok() {
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 5_000_000);
    }

    const MINUTE: StrikeLimits = StrikeLimits { max: 200, window_ms: 60_000 };

    #[test]
    fn two_hundred_strikes_in_a_minute_are_fine_and_one_more_is_not() {
        let cases = [
            ("all at once", 0, 0, true),
            ("one just within", 0, 59_999, true),
            ("one just outside", 0, 60_000, false),
            ("spread", 299, 59_999, true),
            ("spread wider", 301, 200 * 301, false),
        ];
        for (name, step_ms, last_ms, expected) in cases {
            let mut strikes = Strikes::default();
            for number in 0..200 {
                assert!(!strikes.strike(MINUTE, DAY + number * step_ms), "{name}: {number}");
            }
            assert_eq!(strikes.strike(MINUTE, DAY + last_ms), expected, "{name}");
        }
    }

    #[test]
    fn strikes_that_are_spread_never_trip_and_memory_stays_bounded() {
        let mut strikes = Strikes::default();
        for number in 0..10_000 {
            assert!(!strikes.strike(MINUTE, DAY + number * 300), "{number}");
        }
        for number in 0..10_000 {
            strikes.strike(MINUTE, DAY + 3_000_000 + number / 100);
        }
        let times = strikes.0.as_ref().unwrap();
        assert!(times.len() <= 200 && times.capacity() <= 512, "{}", times.capacity());
        assert!(strikes.strike(MINUTE, DAY + 3_000_100), "still over");
        assert!(!strikes.strike(MINUTE, DAY + 3_060_100), "over no more");
        assert!(strikes.0.unwrap().capacity() <= 2 * KEEP_STRIKES, "given back");
    }

    #[test]
    fn strikes_with_a_moving_clock_and_odd_limits() {
        let mut strikes = Strikes::default();
        assert!((0..200).all(|_| !strikes.strike(MINUTE, DAY)));
        assert!(strikes.strike(MINUTE, DAY - HOUR_MS), "they still count");
        assert!(!strikes.strike(MINUTE, DAY - HOUR_MS + 60_000), "but no longer than a window");
        let cases = [
            ("off", 0, 60_000, [false, false, false]),
            ("one, and the first is long past", 1, 60_000, [false, false, true]),
            ("no window", 1, 0, [false, false, false]),
            ("for ever", 2, u64::MAX, [false, false, true]),
        ];
        for (name, max, window_ms, expected) in cases {
            let (mut strikes, limits) = (Strikes::default(), StrikeLimits { max, window_ms });
            assert_eq!([0, u64::MAX / 2, u64::MAX / 2].map(|now| strikes.strike(limits, now)), expected, "{name}");
        }
        assert_eq!(size_of::<Strikes>(), 8);
    }

    fn address(text: &str) -> Address {
        Address::from(text.parse::<IpAddr>().unwrap())
    }

    fn number(number: u32) -> Address {
        Address::from(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn addresses_are_grouped_as_they_are_given_out() {
        let cases = [
            ("1.2.3.4", "1.2.3.4", true),
            ("1.2.3.4", "1.2.3.5", false),
            ("1.2.3.4", "::ffff:1.2.3.4", true),
            ("::ffff:1.2.3.4", "::ffff:1.2.3.5", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("::1", "::2", true),
            ("::1", "0.0.0.0", false),
            ("::1", "127.0.0.1", false),
        ];
        for (a, b, expected) in cases {
            assert_eq!(address(a) == address(b), expected, "{a} and {b}");
        }
        assert_eq!(size_of::<Option<Address>>(), 8);
    }

    #[test]
    fn places_are_counted_for_each_address() {
        let limiter = ByAddress::new(AddressLimits { places: 2, rate: Rate::OFF });
        let (a, b) = (number(1), number(2));
        let first = limiter.enter(a, DAY).unwrap();
        let second = limiter.enter(a, DAY).unwrap();
        assert_eq!(limiter.enter(a, DAY).unwrap_err(), Refused::NoPlace);
        let kept = limiter.enter(b, DAY).unwrap().keep();
        assert_eq!((kept, limiter.len()), (Some(b), 2));
        drop(first);
        let third = limiter.enter(a, DAY).unwrap();
        assert_eq!(limiter.enter(a, DAY).unwrap_err(), Refused::NoPlace);
        drop((second, third));
        assert_eq!(limiter.len(), 1, "forgotten at once, without a rate");
        limiter.leave(b);
        assert!(limiter.is_empty());
        limiter.leave(b);
        assert!(limiter.is_empty(), "one too many does no harm");
    }

    #[test]
    fn places_are_taken_no_faster_than_the_rate() {
        let limiter = ByAddress::new(AddressLimits { places: 0, rate: rate(20, 100) });
        for _ in 0..100 {
            assert_eq!(limiter.enter(number(1), DAY).unwrap().keep(), None, "not counted");
        }
        assert_eq!(limiter.enter(number(1), DAY).unwrap_err(), Refused::TooFast(50));
        assert!(limiter.enter(number(2), DAY).is_ok(), "another address");
        assert!(limiter.enter(number(1), DAY + 50).is_ok());

        let both = ByAddress::new(AddressLimits { places: 1, rate: rate(1, 2) });
        drop(both.enter(number(1), DAY).unwrap());
        let place = both.enter(number(1), DAY).unwrap();
        assert_eq!(both.enter(number(1), DAY).unwrap_err(), Refused::NoPlace, "which takes no token");
        drop(place);
        assert_eq!(both.enter(number(1), DAY).unwrap_err(), Refused::TooFast(1000));
        assert!(both.enter(number(1), DAY + 1000).is_ok());

        let off = ByAddress::new(AddressLimits { places: 0, rate: Rate::OFF });
        assert!((0..1000).all(|_| off.enter(number(1), DAY).is_ok()) && off.is_empty());
    }

    #[test]
    fn addresses_that_did_nothing_for_long_are_forgotten() {
        let limiter = ByAddress::new(AddressLimits { places: 2, rate: rate(1, 1) });
        let stays = limiter.enter(number(u32::MAX), DAY).unwrap();
        // One connect a ms, each from somewhere else: a second's worth of them is remembered.
        for count in 0..50_000 {
            drop(limiter.enter(number(count), DAY + u64::from(count)).unwrap());
            assert!(limiter.len() <= 4096, "{}", limiter.len());
            if let Some(earlier) = count.checked_sub(500) {
                let refused = limiter.enter(number(earlier), DAY + u64::from(count)).unwrap_err();
                assert_eq!(refused, Refused::TooFast(500), "not forgotten too soon");
            }
        }
        assert!(limiter.enter(number(u32::MAX), DAY + 50_000).is_ok());
        assert_eq!(limiter.enter(number(u32::MAX), DAY + 50_000).unwrap_err(), Refused::TooFast(1000));
        drop(stays);
    }

    #[test]
    fn when_all_addresses_are_in_use_newcomers_share_a_bucket() {
        let limiter = ByAddress::new(AddressLimits { places: 1, rate: rate(10, 1) });
        let max = ADDRESSES_MAX as u32;
        for count in 0..max {
            assert!(limiter.enter(number(count), DAY).unwrap().keep().is_some(), "{count}");
        }
        for count in 0..OVERFLOW_FACTOR {
            assert_eq!(limiter.enter(number(max + count), DAY).unwrap().keep(), None, "{count}: not counted");
        }
        assert_eq!(limiter.enter(number(max + 1000), DAY).unwrap_err(), Refused::TooFast(1));
        assert_eq!(limiter.enter(number(1), DAY).unwrap_err(), Refused::NoPlace, "known ones keep their limits");
        assert_eq!(limiter.len(), ADDRESSES_MAX);
        // One goes, and is forgotten when its bucket is full and the table is next looked through.
        limiter.leave(number(5));
        let soon = DAY + SWEEP_PAUSE_MS - 1;
        assert!(limiter.enter(number(max), soon).unwrap().keep().is_none());
        let later = DAY + SWEEP_PAUSE_MS;
        assert_eq!(limiter.enter(number(max), later).unwrap().keep(), Some(number(max)));
        assert!(limiter.enter(number(max + 1), later).unwrap().keep().is_none());
    }
}
