//! What holds for the timeline on disk, damaged or not.

use super::*;
use crate::model::{Actor, CarriedOver, OutsideLinks, Release, Slot};
use crate::record::timeline_file::read_deploy;

fn deployed(number: u32) -> TimelineEvent {
    let release = Release {
        version: format!("v{number}"),
        number: ReleaseNumber(number),
        slot: Slot("blue".to_owned()),
        artifact: None,
        digest: None,
        environment: std::collections::BTreeMap::new(),
        same_version: false,
    };
    let base = Box::new(CarriedOver::default());
    TimelineEvent::Deployed {
        release,
        frozen: false,
        forced: false,
        waived: Vec::new(),
        strict: false,
        outside_links: OutsideLinks::default(),
        by: Actor::default(),
        carried_over: base,
    }
}

fn new_entry(moment: u64, event: TimelineEvent) -> NewEntry {
    NewEntry {
        moment: Moment(moment),
        wall_time: "wall".to_owned(),
        because: "why".to_owned(),
        event,
        planned_effects: Vec::new(),
    }
}

fn open(dir: &Path) -> (Timeline, Vec<TimelineEntry>, Truncated) {
    let OpenedTimeline { timeline, entries, truncated, damage } = Timeline::open(dir, "weather");
    assert_eq!(damage, Vec::<String>::new());
    (timeline, entries, truncated)
}

fn write(dir: &Path, events: impl IntoIterator<Item = TimelineEvent>) {
    let mut timeline = Timeline::open(dir, "weather").timeline;
    for (at, event) in events.into_iter().enumerate() {
        timeline.append(new_entry(1_000 + at as u64, event), Room::Ordinary).unwrap();
    }
}

#[test]
fn what_was_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), [deployed(1), TimelineEvent::Failed, deployed(2), TimelineEvent::Noted]);
    let (_, entries, truncated) = open(dir.path());
    let read_back: Vec<_> =
        entries.iter().map(|it| (it.seq, it.since_deploy_ms, it.event.clone())).collect();
    assert_eq!(read_back, [(1, 0, deployed(2)), (2, 1, TimelineEvent::Noted)]);
    assert_eq!(truncated, Truncated(0));
    assert_eq!(read_deploy(dir.path(), Some(ReleaseNumber(1))).unwrap().len(), 2);
    assert!(read_deploy(dir.path(), Some(ReleaseNumber(3))).is_err());
}

#[test]
fn a_line_cut_at_any_byte_is_removed_and_appends_continue() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), [deployed(1), TimelineEvent::Failed]);
    let path = deploy_path(dir.path(), ReleaseNumber(1));
    let bytes = fs::read(&path).unwrap();
    let first = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for end in first..bytes.len() {
        fs::write(&path, &bytes[..end]).unwrap();
        let (_, entries, truncated) = open(dir.path());
        assert_eq!(
            (entries.len(), truncated),
            (1, Truncated((end - first) as u64)),
            "cut at {end}"
        );
        write(dir.path(), [TimelineEvent::Noted]);
        assert_eq!(
            read_deploy(dir.path(), None).unwrap()[1].event,
            TimelineEvent::Noted,
            "cut at {end}"
        );
    }
}

#[test]
fn a_newest_file_without_a_complete_line_leaves_the_previous_deploy_in_force() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), [deployed(1)]);
    fs::write(deploy_path(dir.path(), ReleaseNumber(2)), b"{\"seq\":1,").unwrap();
    let (_, entries, truncated) = open(dir.path());
    assert_eq!((entries.len(), truncated), (1, Truncated(9)));
}

#[test]
fn a_deploy_that_cannot_be_written_leaves_the_previous_one_in_force() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), [deployed(1)]);
    let (mut timeline, _, _) = open(dir.path());
    fs::create_dir(deploy_path(dir.path(), ReleaseNumber(2))).unwrap();
    let mut append = |event| timeline.append(new_entry(2_000, event), Room::Ordinary);
    append(deployed(2)).unwrap_err();
    append(TimelineEvent::Noted).unwrap();
    fs::remove_dir(deploy_path(dir.path(), ReleaseNumber(2))).unwrap();
    let (_, entries, _) = open(dir.path());
    let events: Vec<_> = entries.iter().map(|it| (it.deploy, it.seq, &it.event)).collect();
    assert_eq!(
        events,
        [(ReleaseNumber(1), 1, &deployed(1)), (ReleaseNumber(1), 2, &TimelineEvent::Noted)]
    );
}

#[test]
fn a_file_removed_while_it_was_open_is_restored() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("weather");
    fs::create_dir(&dir).unwrap();
    write(&dir, [deployed(1)]);
    let (mut timeline, _, _) = open(&dir);
    let mut append = |event| timeline.append(new_entry(2_000, event), Room::Ordinary);
    fs::remove_dir_all(&dir).unwrap();
    append(TimelineEvent::Noted).unwrap();
    append(TimelineEvent::Failed).unwrap();
    let (_, entries, _) = open(&dir);
    let events: Vec<_> = entries.iter().map(|it| (it.seq, &it.event)).collect();
    assert_eq!(
        events,
        [(1, &deployed(1)), (2, &TimelineEvent::Noted), (3, &TimelineEvent::Failed)]
    );
    fs::remove_dir_all(&dir).unwrap();
    append(deployed(2)).unwrap();
    assert_eq!(read_deploy(&dir, None).unwrap().len(), 1);
}

/// Opens after damage: the kinds of the entries, and the damage.
fn open_damaged(dir: &Path) -> (Timeline, Vec<(u32, &'static str)>, Vec<String>) {
    let OpenedTimeline { timeline, entries, damage, .. } = Timeline::open(dir, "weather");
    let kinds = entries.iter().map(|it| (it.deploy.0, it.event.kind())).collect();
    (timeline, kinds, damage)
}

#[test]
fn a_file_over_the_limit_counts_as_far_as_it_fits_and_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), [deployed(1), TimelineEvent::Noted]);
    let path = deploy_path(dir.path(), ReleaseNumber(1));
    let bytes = fs::read(&path).unwrap();
    let size = bytes.len() as u64;
    let opened = Timeline::open_with_limit(dir.path(), "weather", size - 1);
    assert_eq!(opened.entries.len(), 1);
    let expected = format!("000001.jsonl: it has more than {} bytes", size - 1);
    assert!(opened.damage[0].contains(&expected), "{:?}", opened.damage);
    assert_eq!(fs::read(path.with_file_name("000001.jsonl.damaged")).unwrap(), bytes);
    assert_eq!(open(dir.path()).1.len(), 1);
}

#[test]
fn damage_in_the_middle_leaves_what_is_before_it_and_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let noted = || TimelineEvent::Noted;
    write(dir.path(), [deployed(1), TimelineEvent::Failed, deployed(2), noted(), noted()]);
    let path = deploy_path(dir.path(), ReleaseNumber(2));
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = whole.lines().collect();
    for broken in ["garbage", "\0\0\0", lines[0], &"x".repeat(100_000)] {
        let damaged = format!("{}\n{broken}\n{}\n", lines[0], lines[2]);
        fs::write(&path, &damaged).unwrap();
        let (mut timeline, kinds, damage) = open_damaged(dir.path());
        assert_eq!(kinds, [(2, "deployed")], "{broken}");
        assert!(damage[0].contains("line 2"), "{damage:?}");
        let copy = damage[0].rsplit_once("the damaged file is ").unwrap().1;
        assert_eq!(fs::read_to_string(copy).unwrap(), damaged);
        timeline.append(new_entry(3_000, noted()), Room::Ordinary).unwrap();
        assert_eq!(open(dir.path()).1.len(), 2);
    }
}

#[test]
fn what_is_no_timeline_at_all_is_set_aside_and_the_deploy_before_counts() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), [deployed(1)]);
    let path = deploy_path(dir.path(), ReleaseNumber(2));
    let make: [&dyn Fn(); 4] = [
        &|| fs::create_dir(&path).unwrap(),
        &|| fs::write(&path, "garbage\nmore\n").unwrap(),
        &|| std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
        &|| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let (cwd, fifo) = (rustix::fs::CWD, rustix::fs::FileType::Fifo);
            rustix::fs::mknodat(cwd, &path, fifo, mode, 0).unwrap();
        },
    ];
    for make in make {
        make();
        let (mut timeline, kinds, damage) = open_damaged(dir.path());
        assert_eq!(kinds, [(1, "deployed")]);
        assert!(damage[0].contains("the deploy before it counts"), "{damage:?}");
        timeline.append(new_entry(3_000, deployed(2)), Room::Ordinary).unwrap();
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn entries_that_come_later_keep_their_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let mut timeline = open(dir.path()).0;
    timeline.append(new_entry(1_000, deployed(1)), Room::Ordinary).unwrap();
    let late: Vec<_> = (0..2)
        .map(|count| timeline.next_entry(new_entry(2_000, TimelineEvent::Noted), count))
        .collect();
    assert_eq!([late[0].seq, late[1].seq], [2, 3]);
    for entry in &late {
        timeline.write(entry, Room::Rollback).unwrap();
    }
    assert_eq!(open(dir.path()).1.len(), 3);
}
