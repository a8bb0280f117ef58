use super::*;

const MEDIUM: Medium = Medium { present: true, capacity: 1 << 20, read_only: false };

fn unit(kind: Kind) -> Unit {
    let mut unit = Unit::new(Options {
        kind,
        vendor: "QEMU".to_owned(),
        product: "QEMU HARDDISK".to_owned(),
        version: "2.5+".to_owned(),
        serial: "S1".to_owned(),
        device_id: "drive0".to_owned(),
        wwn: 0x5000_0000_0000_0001,
        logical_block_size: if kind == Kind::Disk { 512 } else { 2048 },
        physical_block_size: 4096,
        io_sizes: (0, 0),
        discard_granularity: 4096,
        max_unmap_size: 1 << 30,
        rotation_rate: 1,
        removable: false,
        dpofua: true,
        write_cache: true,
    });
    assert_eq!(run(&mut unit, &[op::TEST_UNIT_READY]), Plan::Check(Sense::RESET));
    unit
}

fn run_with(unit: &mut Unit, cdb: &[u8], medium: Medium, data: &[u8]) -> Plan {
    let mut bytes = [0; 16];
    bytes[..cdb.len()].copy_from_slice(cdb);
    unit.plan(&bytes, medium, &|len| data[..len.min(data.len())].to_vec())
}

fn run(unit: &mut Unit, cdb: &[u8]) -> Plan {
    run_with(unit, cdb, MEDIUM, &[])
}

fn reply(unit: &mut Unit, cdb: &[u8]) -> Vec<u8> {
    match run(unit, cdb) {
        Plan::Reply(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn inquiry_names_the_unit_and_its_pages() {
    let mut disk = unit(Kind::Disk);
    let bytes = reply(&mut disk, &[0x12, 0, 0, 0, 96]);
    assert_eq!(&bytes[..8], [0, 0, 5, 0x12, 31, 0, 0, 0x12]);
    assert_eq!(&bytes[8..], b"QEMU    QEMU HARDDISK   2.5+");
    assert_eq!(reply(&mut disk, &[0x12, 1, 0, 0, 96]), [0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
    assert_eq!(reply(&mut disk, &[0x12, 1, 0x80, 0, 96]), b"\0\x80\0\x02S1");
    assert_eq!(reply(&mut disk, &[0x12, 1, 0x83, 0, 96])[..14], *b"\0\x83\0\x16\x02\0\0\x06drive0");
    let limits = reply(&mut disk, &[0x12, 1, 0xb0, 0, 96]);
    assert_eq!((limits.len(), be(&limits, 20, 4), be(&limits, 24, 4), be(&limits, 28, 4)), (64, 1 << 21, 255, 8));
    assert_eq!(run(&mut disk, &[0x12, 1, 0x99, 0, 96]), Plan::Check(Sense::BAD_FIELD));
}

#[test]
fn capacity_reads_and_writes() {
    let mut disk = unit(Kind::Disk);
    assert_eq!(reply(&mut disk, &[0x25]), [0, 0, 7, 0xff, 0, 0, 2, 0]);
    let long = reply(&mut disk, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32]);
    assert_eq!((long.len(), be(&long, 0, 8), long[13], long[14]), (32, 2047, 3, 0x80));
    let read = |offset, len| Plan::Read { offset, len };
    assert_eq!(run(&mut disk, &[0x28, 0, 0, 0, 0, 2, 0, 0, 3]), read(1024, 1536));
    assert_eq!(run(&mut disk, &[0x08, 0, 0, 1, 0]), read(512, 256 * 512));
    assert_eq!(run(&mut disk, &[0x88, 0, 0, 0, 0, 0, 0, 0, 7, 0xff, 0, 0, 0, 1]), read(2047 * 512, 512));
    assert_eq!(run(&mut disk, &[0x28, 0, 0, 0, 7, 0xff, 0, 0, 2]), Plan::Check(Sense::OUT_OF_RANGE));
    let all = [0x88, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255];
    assert_eq!(run(&mut disk, &all), Plan::Check(Sense::OUT_OF_RANGE));
    assert_eq!(run(&mut disk, &[0x2a, 8, 0, 0, 0, 0, 0, 0, 1]), Plan::Write { offset: 0, len: 512, fua: true });
    let protected = Medium { read_only: true, ..MEDIUM };
    assert_eq!(
        run_with(&mut disk, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1], protected, &[]),
        Plan::Check(Sense::WRITE_PROTECTED)
    );
    assert_eq!(run(&mut disk, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 0]), Plan::Reply(vec![]));
}

#[test]
fn discards_zeroes_and_patterns() {
    let mut disk = unit(Kind::Disk);
    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
    list.extend_from_slice(&4u64.to_be_bytes());
    list.extend_from_slice(&2u32.to_be_bytes());
    list.extend_from_slice(&[0; 4]);
    let unmap = [0x42, 0, 0, 0, 0, 0, 0, 0, 24];
    let step = |op, offset, len| Step { op, offset, payload: Payload::Len(len) };
    assert_eq!(run_with(&mut disk, &unmap, MEDIUM, &list), Plan::Steps(vec![step(Op::Discard, 2048, 1024)]));
    assert_eq!(run_with(&mut disk, &unmap, MEDIUM, &list[..20]), Plan::Check(Sense::BAD_PARAMETER_LENGTH));
    list[8] = 0xff;
    assert_eq!(run_with(&mut disk, &unmap, MEDIUM, &list), Plan::Check(Sense::OUT_OF_RANGE));
    let same = [0x93, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    let zero = step(Op::WriteZeroes { may_unmap: true }, 512, 1024);
    assert_eq!(run_with(&mut disk, &same, MEDIUM, &[0; 512]), Plan::Steps(vec![zero]));
    let Plan::Steps(steps) = run_with(&mut disk, &same, MEDIUM, &[3; 512]) else { panic!("steps") };
    assert_eq!(steps, [Step { op: Op::Write, offset: 512, payload: Payload::Buffer(vec![3; 1024]) }]);
    assert_eq!(run_with(&mut disk, &same, MEDIUM, &[3; 100]), Plan::Check(Sense::BAD_PARAMETER_LENGTH));
    let verify = [0x2f, 2, 0, 0, 0, 0, 0, 0, 1];
    let compare = Plan::Compare { offset: 0, expected: vec![9; 512] };
    assert_eq!(run_with(&mut disk, &verify, MEDIUM, &[9; 512]), compare);
}

#[test]
fn the_write_cache_can_be_switched_and_nothing_else() {
    let mut disk = unit(Kind::Disk);
    let sense = reply(&mut disk, &[0x1a, 8, 8, 0, 255]);
    assert_eq!((sense[0], sense[2], sense[4], sense[6]), (23, 0x10, 8, 4));
    let mut list = sense;
    list[0] = 0;
    list[6] = 0;
    let select = [0x15, 0x10, 0, 0, 24];
    assert_eq!(run_with(&mut disk, &select, MEDIUM, &list), Plan::Reply(vec![]));
    assert_eq!(run(&mut disk, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1]), Plan::Write { offset: 0, len: 512, fua: true });
    list[8] = 1;
    assert_eq!(run_with(&mut disk, &select, MEDIUM, &list), Plan::Check(Sense::BAD_PARAMETER));
    assert_eq!(run_with(&mut disk, &select, MEDIUM, &list[..10]), Plan::Check(Sense::BAD_PARAMETER_LENGTH));
}

#[test]
fn a_cd_tells_its_contents_and_its_tray() {
    let mut cd = unit(Kind::Cdrom);
    assert_eq!(reply(&mut cd, &[0x25]), [0, 0, 1, 0xff, 0, 0, 8, 0]);
    let toc = reply(&mut cd, &[0x43, 0, 0, 0, 0, 0, 0, 0, 100]);
    assert_eq!(toc, [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xaa, 0, 0, 0, 2, 0]);
    assert_eq!(run(&mut cd, &[0x28, 0, 0, 0, 0, 1, 0, 0, 1]), Plan::Read { offset: 2048, len: 2048 });
    assert_eq!(run(&mut cd, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1]), Plan::Check(Sense::BAD_OPCODE));
    assert_eq!(run(&mut cd, &[0x1e, 0, 0, 0, 1]), Plan::Reply(vec![]));
    assert_eq!(run(&mut cd, &[0x1b, 0, 0, 0, 2]), Plan::Check(Sense::REMOVAL_PREVENTED));
    assert_eq!(run(&mut cd, &[0x1e, 0, 0, 0, 0]), Plan::Reply(vec![]));
    assert_eq!(run(&mut cd, &[0x1b, 0, 0, 0, 2]), Plan::Reply(vec![]));
    assert_eq!(run(&mut cd, &[0x00]), Plan::Check(Sense::TRAY_OPEN));
    cd.medium_changed();
    assert_eq!(run(&mut cd, &[0x00]), Plan::Check(Sense::MEDIUM_CHANGED));
    assert_eq!(run(&mut cd, &[0x00]), Plan::Reply(vec![]));
    let event = reply(&mut cd, &[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8]);
    assert_eq!(event[4..6], [2, 2]);
    let gone = Medium { present: false, capacity: 0, read_only: true };
    assert_eq!(run_with(&mut cd, &[0x00], gone, &[]), Plan::Check(Sense::NOT_PRESENT));
}

#[test]
fn random_commands_never_reach_past_the_disk() {
    let mut random = crate::hw::bench::Random(0x9e37_79b9_7f4a_7c15);
    for kind in [Kind::Disk, Kind::Cdrom] {
        let mut unit = unit(kind);
        for _ in 0..20_000 {
            let mut cdb = [0; 16];
            cdb[..8].copy_from_slice(&random.next().to_le_bytes());
            cdb[8..].copy_from_slice(&(random.next() >> (random.next() % 64)).to_be_bytes());
            let data: Vec<u8> = (0..random.next() % 64).map(|_| (random.next() % 40) as u8).collect();
            let inside = |offset: u64, len: u64| offset.checked_add(len).is_some_and(|end| end <= MEDIUM.capacity);
            let ok = match run_with(&mut unit, &cdb, MEDIUM, &data) {
                Plan::Read { offset, len } | Plan::Write { offset, len, .. } => inside(offset, len),
                Plan::Compare { offset, expected } => inside(offset, expected.len() as u64),
                Plan::Steps(steps) => steps.iter().all(|step| match &step.payload {
                    Payload::Len(len) => inside(step.offset, *len),
                    Payload::Buffer(buffer) => inside(step.offset, buffer.len() as u64),
                    Payload::Guest(_) => false,
                }),
                Plan::Reply(_) | Plan::Check(_) => true,
            };
            assert!(ok, "{cdb:02x?}");
        }
    }
}
