//! How the images of a backup get their keys.

use aiv_backup_engine::{Hedge, Mode, SealOptions};
use aiv_chain::KeyedChain;
use aiv_image_format::{ChainKey, Digest, Keys};
use aiv_keys::{Credential, KeyArea, NewSlot, Opened, RecoveryCode, Way, Work};

use crate::backup::random;
use crate::error::Result;
use crate::keys::NewKey;
use crate::world::World;

/// What a user wants sealed, and what opens it.
#[derive(Debug, Clone)]
pub struct SealJob {
    /// What keys are for, where the user says so.
    pub mode: Option<Mode>,
    /// Whether sizes are rounded up.
    pub padding: bool,
    /// Chains that exist and were opened.
    pub opened: Vec<(ChainKey, bool)>,
    /// Chains that an interrupted backup began, and whose key is nowhere but in what it left, with
    /// their slots.
    pub begun: Vec<(ChainKey, KeyArea)>,
    /// What opens a new chain.
    pub new: NewKey,
    /// What opens it as well, if anything.
    pub recovery_code: Option<RecoveryCode>,
}

impl SealJob {
    /// Those of `chains` that were opened: the key of each, and whether it is retired, which the
    /// newest slots say; what opened it may be in older ones only.
    #[must_use]
    pub fn chains(opened: &[Opened], chains: &[KeyedChain]) -> Vec<(ChainKey, bool)> {
        let is_retired = |key| {
            let mut newest = chains.iter().filter_map(|chain| chain.newest(key));
            newest.any(|area| area.is_retired())
        };
        opened.iter().map(|one| (one.key.clone(), is_retired(&one.key))).collect()
    }

    /// Those of `chains`, which were never finished, that `credential` opens and nothing else: what
    /// else would open them went with the backup that was interrupted.
    #[must_use]
    pub fn begun(credential: &Credential, chains: &[KeyedChain]) -> Vec<(ChainKey, KeyArea)> {
        // One bound for all: whoever can write to the folder can lay many there.
        let mut work = Work::new();
        let areas = chains.iter().flat_map(KeyedChain::areas);
        let areas = areas.filter(|area| area.slots().count() == 1 && !area.is_retired());
        let open = |area: KeyArea| area.open(credential, &mut work).ok().map(|it| (it.key, area));
        areas.filter_map(open).collect()
    }

    /// For one image: with a new chain key, which it gets only if it begins a chain.
    pub(crate) fn options(&self, world: &dyn World) -> Result<SealOptions> {
        let key = ChainKey::new(random(world)?);
        let mut area = self.new.first_slot(&key, "", world)?;
        if let Some(code) = &self.recovery_code {
            let slot = NewSlot {
                way: Way::RecoveryCode(code),
                label: "",
                created_unix_ms: world.now_unix_ms(),
                random: &random(world)?,
            };
            area = area.add(&key, &slot)?.0;
        }
        let mut keys = Keys::none();
        self.opened.iter().for_each(|(key, _)| keys.add(key.clone()));
        let retired = self.opened.iter().filter(|(_, retired)| *retired);
        let retired = retired.map(|(key, _)| Digest(key.commitment())).collect();
        let hedge = hedge(world)?;
        let (mode, padding) = (self.mode, self.padding);
        let begun = match self.recovery_code {
            None => self.begun.clone(),
            // It would open nothing.
            Some(_) => Vec::new(),
        };
        Ok(SealOptions { mode, keys, retired, fresh: (key, area), begun, padding, hedge })
    }
}

/// What names this process, now.
fn hedge(world: &dyn World) -> Result<Hedge> {
    let boot = world.root().join("proc/sys/kernel/random/boot_id");
    // A hedge only: where it cannot be read, the rest has to do.
    let boot = std::fs::read_to_string(boot).unwrap_or_default();
    let since_1970 = u128::from(world.now_unix_ms()) * 1_000_000;
    Ok(Hedge {
        random: random(world)?,
        nonce_salt: u32::from_le_bytes(random(world)?),
        time_ns: since_1970 + world.clock().now().as_nanos() % 1_000_000,
        place: format!("{} {}", std::process::id(), boot.trim()),
    })
}
