//! The page of help.

/// Its lines, each at most 80 characters.
pub const HELP: &str = "\
Keys of the table

  up down, j k, PgUp PgDn, Home End
               choose a target
  Enter        all about the chosen target; Esc goes back
  /            filter: only targets with that text in address, state, model,
               serial number, interface or MAC; Enter keeps it, Esc ends it
  s S  < >     next or previous value to sort by
  r            turn the order around
  p            show or hide the paths of each target
  l            show or hide the log
  + -          shorter or longer time between two readings
  space        pause, go on
  h ?          this page; up and down move through it, any other key leaves it
  q, Ctrl-C    quit             Ctrl-Z  stop

Columns

  TARGET   shelf and slot       STATE  up or down
  SIZE     of the disk, in bytes: 1 MB is 1,000,000
  IOPS     reads, writes and flushes that ended, a second
  RD MB/s  read, a second       WR MB/s  written, a second
  LAT      mean latency of reads and writes
  P99      the latency that one in 100 exceeds
  QUEUE    requests that are not answered yet
  RETX/s   frames sent again, a second
  ERR/s    requests that failed, a second
  PATHS    paths that carry work, of how many

  A dash is what is not known, or what a target that is down does not do.

Path lines

  interface, MAC address of the target, state; rtt: round trip; frames on
  their way, of how many that may be; data a second, both ways; frames sent
  again, a second and since the start; bytes of data in a frame";
