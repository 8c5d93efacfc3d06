//! What Redis runs for us: one script for each atomic step.

use crate::redis::Script;

/// A script on a meeting, behind what they share.
macro_rules! on_meeting {
    ($file:literal) => {
        Script::new(concat!(include_str!("meeting.lua"), include_str!($file)))
    };
}

/// A script on a user, behind what they share.
macro_rules! on_user {
    ($file:literal) => {
        Script::new(concat!(include_str!("user.lua"), include_str!($file)))
    };
}

/// A script on reminders, behind what they share.
macro_rules! on_reminders {
    ($file:literal) => {
        Script::new(concat!(include_str!("reminders.lua"), include_str!($file)))
    };
}

pub(super) static APPEND: Script = on_meeting!("append.lua");
pub(super) static OPEN: Script = on_meeting!("open.lua");
pub(super) static CHECK: Script = on_meeting!("check.lua");
pub(super) static RANGE: Script = on_meeting!("range.lua");
pub(super) static MARK: Script = on_meeting!("mark.lua");
pub(super) static CLOSE: Script = on_meeting!("close.lua");
pub(super) static ERASE: Script = on_meeting!("erase.lua");

pub(super) static NOTIFY: Script = on_user!("notify.lua");
pub(super) static INBOX: Script = on_user!("inbox.lua");
pub(super) static READ: Script = on_user!("read.lua");
pub(super) static SUMMARY: Script = on_user!("summary.lua");
pub(super) static LIST_MARK: Script = on_user!("list_mark.lua");

pub(super) static SET_REMINDERS: Script = on_reminders!("set_reminders.lua");
pub(super) static TAKE_REMINDERS: Script = on_reminders!("take_reminders.lua");
pub(super) static DROP_REMINDER: Script = on_reminders!("drop_reminder.lua");

pub(super) static CLAIM: Script = Script::new(include_str!("claim.lua"));
pub(super) static PARTICIPANT: Script = Script::new(include_str!("participant.lua"));
