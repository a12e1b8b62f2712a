//! `appliance store`: looks into a volume of the artifact store that no service has open.

use std::path::PathBuf;

use ::store::Offline;
use anyhow::{Result, bail};

mod place;

use place::Place;

/// Look into a volume of the artifact store.
///
/// PATH is the folder where its disk is mounted, as /cas, or a partition, a disk or an image file, of
/// which the partition "cas" is mounted meanwhile, read-only where nothing is to be changed (only root
/// may). The service must not run: the volume's lock is respected.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Read every byte and say what is not as it should be; fails if something is not
    Check {
        /// Folder where the disk is mounted, partition, disk or image file
        path: PathBuf,
    },
    /// Say what it holds: segments, bytes, objects by project
    Stat {
        /// Folder where the disk is mounted, partition, disk or image file
        path: PathBuf,
    },
    /// List all records, oldest first: segment, byte, kind, live or not, time, length, key, writer
    Dump {
        /// Folder where the disk is mounted, partition, disk or image file
        path: PathBuf,
    },
    /// Remove the checkpoints: the next start makes the index from the log
    RebuildIndex {
        /// Folder where the disk is mounted, partition, disk or image file
        path: PathBuf,
    },
}

/// Runs the command.
pub(crate) fn run(command: &Command) -> Result<()> {
    let (Command::Check { path }
    | Command::Stat { path }
    | Command::Dump { path }
    | Command::RebuildIndex { path }) = command;
    let place = Place::open(path, matches!(command, Command::RebuildIndex { .. }))?;
    let offline = Offline::open(place.folder())?;
    match command {
        Command::Check { path } => {
            let mut problems = 0_u64;
            let right = offline.check(|problem| {
                problems += 1;
                println!("{problem}");
            });
            println!("{right} objects are right, {problems} problems");
            if problems > 0 {
                bail!("{}: {problems} problems", path.display());
            }
        }
        Command::Stat { .. } => {
            let stat = offline.stat();
            let (segments, open) = stat.segments;
            let (bytes, live) = stat.segment_bytes;
            println!(
                "{segments} segments ({open} not sealed), {bytes} bytes, {live} of them in use"
            );
            println!("{} large objects, {} bytes", stat.large.0, stat.large.1);
            println!(
                "{} records, {} projects cleaned",
                stat.records, stat.cleaned
            );
            for (name, (objects, bytes)) in &stat.projects {
                println!("{name}: {objects} objects, {bytes} bytes");
            }
        }
        Command::Dump { .. } => offline.dump(|row| {
            let info = &row.info;
            println!(
                "{:08x} {:>10} {:7} {} {} {:>10} {} {:?} {:?}",
                row.segment,
                row.offset,
                row.kind,
                if row.live { "live" } else { "dead" },
                info.time,
                info.length,
                info.key,
                info.writer.subject,
                info.writer.request,
            );
        }),
        Command::RebuildIndex { .. } => {
            offline.rebuild_index()?;
            println!("the next start makes the index from the log");
        }
    }
    Ok(())
}
