//! What a frame costs: nanoseconds to parse and to emit the frames that carry the load, and the one that carries the
//! limits.
//!
//! Data is not copied here, since `wire` never does. `cargo bench --bench wire`; a frame of 8 KiB on a 10 Gbit/s wire
//! lasts 6700 ns, so the figures must stay far below.

use std::hint::black_box;

use aoefs::wire::{
    ATA_LEN, Addr, Ata, Command, Config, DATA_OFFSET, HEADER_LEN, Header, Mac, SECTOR, Sector, Tag, VERSION,
    Verb, status,
};
use criterion::{Criterion, criterion_group, criterion_main};

const SECTORS: u8 = 16;
const LENGTH: usize = DATA_OFFSET + SECTORS as usize * SECTOR;

fn header(command: Command, response: bool) -> Header {
    Header {
        dst: Mac([2, 0, 0, 0, 0, 1]),
        src: Mac([2, 0, 0, 0, 0, 2]),
        version: VERSION,
        response,
        error: None,
        addr: Addr::new(1, 0),
        command,
        tag: Tag(Tag::OURS | 77),
    }
}

/// Runs a parser and an emitter of the same frame, over buffers that stay in the cache as a batch's do.
fn frame<T>(
    c: &mut Criterion,
    name: &str,
    length: usize,
    emit: impl Fn(&mut [u8]),
    parse: impl Fn(&[u8]) -> Option<T>,
) {
    let mut buffer = vec![0; length];
    emit(&mut buffer);
    assert!(parse(&buffer).is_some(), "{name} does not parse");
    let mut group = c.benchmark_group(name);
    group.bench_function("parse", |b| b.iter(|| black_box(parse(black_box(&buffer))).is_some()));
    group.bench_function("emit", |b| b.iter(|| emit(black_box(&mut buffer))));
    group.finish();
}

fn frames(c: &mut Criterion) {
    frame(c, "read reply", LENGTH, |out| emit_ata(out, true, read_reply()), parse_ata);
    frame(c, "write request", LENGTH, |out| emit_ata(out, false, write_request()), parse_ata);
    let limits = Config {
        buffers: 16,
        firmware: 1,
        sectors: SECTORS,
        version: VERSION,
        verb: Verb::Read,
        string: b"a label",
    };
    frame(
        c,
        "config reply",
        HEADER_LEN + limits.len(),
        |out| {
            black_box(header(Command::Config, true)).emit(out);
            black_box(limits).emit(&mut out[HEADER_LEN..]);
        },
        |frame| {
            let (header, body) = Header::parse(frame).ok()?;
            let config = Config::parse(body).ok()?;
            Some((header, config.buffers, config.sectors, config.string.len()))
        },
    );
}

fn read_reply() -> Ata {
    Ata { count: 0, command: status::DRDY, ..Ata::read(Sector(black_box(0x0012_3456_789a)), SECTORS, true) }
}

fn write_request() -> Ata {
    Ata::write(Sector(black_box(0x0012_3456_789a)), SECTORS, true)
}

fn emit_ata(out: &mut [u8], response: bool, ata: Ata) {
    black_box(header(Command::Ata, response)).emit(out);
    black_box(ata).emit(&mut out[HEADER_LEN..HEADER_LEN + ATA_LEN]);
}

fn parse_ata(frame: &[u8]) -> Option<(Header, Ata, usize)> {
    let (header, body) = Header::parse(frame).ok()?;
    let (ata, data) = Ata::parse(body).ok()?;
    Some((header, ata, data.len()))
}

criterion_group!(benches, frames);
criterion_main!(benches);
