//! Reminders, by when they are due.

use std::{
    collections::{BTreeMap, HashMap},
    mem::size_of,
    sync::Arc,
};

use crate::{
    store::{REMINDER_TAKEN_MS, Reminder, Reminders, memory::table::Weigh},
    types::RoomId,
};

/// The reminders of all meetings.
#[derive(Default)]
pub(super) struct Calendar {
    due: BTreeMap<Key, Due>,
    plans: HashMap<RoomId, Plan>,
    /// The last number that was given.
    number: u64,
    bytes: usize,
}

/// When it is due, and a number, as several may be due at once.
type Key = (u64, u64);

struct Due {
    plan: Arc<About>,
    offset: Box<str>,
}

/// What waits for one meeting: never empty.
struct Plan {
    about: Arc<About>,
    keys: Vec<Key>,
}

/// What is the same in all reminders of a meeting.
struct About {
    meeting: RoomId,
    starts_at: u64,
    recipients: Vec<Arc<str>>,
    title: Option<Box<str>>,
}

/// Reminders that are taken in one call.
const TAKEN_MAX: usize = 256;

const DUE_BYTES: usize = 2 * size_of::<(Key, Due)>() + size_of::<Key>();
const PLAN_BYTES: usize = 2 * size_of::<(RoomId, Plan)>() + size_of::<About>() + 64;
/// A recipient's id, beside its text.
const RECIPIENT_BYTES: usize = size_of::<Arc<str>>() + 32;

impl Weigh for Calendar {
    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Calendar {
    /// Replaces a meeting's reminders.
    pub(super) fn set(&mut self, meeting: &RoomId, reminders: Reminders) {
        let replaced = self.plans.get(meeting).map(|plan| Arc::clone(&plan.about));
        self.drop_plan(meeting);
        let Reminders { starts_at, due, recipients, title } = reminders;
        if due.is_empty() {
            return;
        }
        let replaced = replaced.as_deref();
        let recipients = recipients.or_else(|| Some(replaced?.recipients.clone())).unwrap_or_default();
        let title = title.or_else(|| replaced?.title.clone());
        let about = Arc::new(About { meeting: meeting.clone(), starts_at, recipients, title });
        let mut keys = Vec::with_capacity(due.len());
        for (at, offset) in due {
            self.number += 1;
            let due = Due { plan: Arc::clone(&about), offset };
            self.bytes += due.bytes();
            self.due.insert((at, self.number), due);
            keys.push((at, self.number));
        }
        self.bytes += about.bytes();
        self.plans.insert(meeting.clone(), Plan { about, keys });
    }

    /// Drops a meeting's reminders.
    pub(super) fn drop_plan(&mut self, meeting: &RoomId) {
        let Some(plan) = self.plans.remove(meeting) else { return };
        self.bytes -= plan.about.bytes();
        for due in plan.keys.iter().filter_map(|key| self.due.remove(key)) {
            self.bytes -= due.bytes();
        }
    }

    /// Gives what is due, at most 256, what is due for longest first; and puts it off.
    pub(super) fn take(&mut self, now: u64) -> Vec<Reminder> {
        let keys: Vec<Key> = self.due.range(..=(now, u64::MAX)).map(|(key, _)| *key).take(TAKEN_MAX).collect();
        let mut taken = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(due) = self.due.remove(&key) else { continue };
            taken.push(Reminder {
                meeting: due.plan.meeting.clone(),
                starts_at: due.plan.starts_at,
                offset: due.offset.clone(),
                due_at: key.0,
                recipients: due.plan.recipients.clone(),
                title: due.plan.title.clone(),
            });
            let later = (now.saturating_add(REMINDER_TAKEN_MS), key.1);
            if let Some(plan) = self.plans.get_mut(&due.plan.meeting) {
                plan.keys.iter_mut().filter(|other| **other == key).for_each(|other| *other = later);
            }
            self.due.insert(later, due);
        }
        taken
    }

    /// Drops one that is done, unless the meeting's have been replaced.
    pub(super) fn drop_one(&mut self, reminder: &Reminder) {
        let Some(plan) = self.plans.get(&reminder.meeting) else { return };
        if plan.about.starts_at != reminder.starts_at {
            return;
        }
        let is_it = |key: &&Key| self.due.get(key).is_some_and(|due| due.offset == reminder.offset);
        if let Some(key) = plan.keys.iter().find(is_it).copied() {
            self.remove(key);
        }
    }

    /// When the first one is due.
    pub(super) fn next(&self) -> Option<u64> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.due.len()
    }

    /// Drops the reminder that is due last. False if there is none.
    pub(super) fn drop_last(&mut self) -> bool {
        let last = self.due.last_key_value().map(|(key, _)| *key);
        last.and_then(|key| self.remove(key)).is_some()
    }

    fn remove(&mut self, key: Key) -> Option<Due> {
        let due = self.due.remove(&key)?;
        self.bytes -= due.bytes();
        if let Some(plan) = self.plans.get_mut(&due.plan.meeting) {
            plan.keys.retain(|other| *other != key);
            if plan.keys.is_empty() {
                self.bytes -= due.plan.bytes();
                self.plans.remove(&due.plan.meeting);
            }
        }
        Some(due)
    }
}

impl Due {
    fn bytes(&self) -> usize {
        DUE_BYTES + self.offset.len()
    }
}

impl About {
    fn bytes(&self) -> usize {
        let recipients: usize = self.recipients.iter().map(|user| RECIPIENT_BYTES + user.len()).sum();
        PLAN_BYTES + recipients + self.title.as_ref().map_or(0, |title| title.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_takes_all_it_weighed_with_it() {
        let reminders = |due: &[u64]| Reminders {
            due: due.iter().map(|at| (*at, "15m".into())).collect(),
            recipients: Some(vec!["u".into(), "v".into()]),
            title: Some("title".into()),
            ..Reminders::default()
        };
        let (a, b) = (RoomId::new("a"), RoomId::new("b"));
        #[expect(clippy::type_complexity, reason = "a table: one row, one way")]
        let ways: &[(&str, fn(&mut Calendar, &RoomId))] = &[
            ("taken and done", |calendar, _| {
                let taken = calendar.take(30);
                assert_eq!(taken.len(), 3);
                taken.iter().for_each(|reminder| calendar.drop_one(reminder));
            }),
            ("dropped", Calendar::drop_plan),
            ("replaced by none", |calendar, meeting| calendar.set(meeting, Reminders::default())),
            ("dropped one by one", |calendar, _| while calendar.drop_last() {}),
        ];
        for (name, way) in ways {
            let mut calendar = Calendar::default();
            calendar.set(&a, reminders(&[1, 2, 3, 4]));
            let more = calendar.bytes();
            calendar.set(&a, reminders(&[30, 10, 20]));
            assert!(calendar.bytes() < more, "{name}");
            way(&mut calendar, &a);
            assert_eq!((calendar.bytes(), calendar.len(), calendar.plans.len()), (0, 0, 0), "{name}");
        }
        let mut calendar = Calendar::default();
        calendar.set(&a, reminders(&[10]));
        calendar.set(&b, reminders(&[20]));
        assert!(calendar.drop_last());
        assert_eq!((calendar.next(), calendar.plans.contains_key(&b)), (Some(10), false), "the farthest goes");
    }
}
