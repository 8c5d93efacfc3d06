-- Returns how many notifications are unread and how many there are, and the meetings with a mark.
load()
return { unread, len, call('ZRANGE', MARKS, 0, -1) }
