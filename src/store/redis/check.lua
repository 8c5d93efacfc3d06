-- Where a log ends. Returns epoch, top, first seq.
begin()
trim()
return { epoch, top, first_seq() }
