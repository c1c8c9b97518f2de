//! One release of a site, looked into: what is in it, what it changed, and what becomes of it.

use pressroom_agent::site::is_ours;
use pressroom_api::failure::Failure;
use pressroom_api::release::{Details, Diff, PartMove, Which};
use pressroom_model::id::ReleaseId;
use pressroom_model::rollout::{Part, PartKind};
use pressroom_release::ReleaseError;
use pressroom_release::parts::parts;

use crate::deliver::Delivery;

impl Delivery<'_> {
    /// A release of the site; by default the one that serves.
    pub(crate) async fn show(&self, which: &Which) -> Result<Details, Failure> {
        let id = match &which.release {
            Some(text) => self.find(text)?,
            None => self.serving().ok_or_else(|| self.unknown("serving"))?,
        };
        let records = self.agent.releases(self.name());
        let at = records.iter().position(|record| record.id == id);
        let at = at.ok_or_else(|| self.unknown(id.as_str()))?;
        let kept = self.agent.kept(self.name(), &id).ok_or_else(|| self.unknown(id.as_str()))?;
        let predecessor = records.get(at + 1).map(|record| record.id.clone());
        let own = self.parts(&id).await?;
        let (diff, moves) = match &predecessor {
            None => (Diff { to: Some(id.clone()), ..Diff::default() }, Vec::new()),
            Some(before) => {
                let moves = PartMove::between(&self.parts(before).await?, &own);
                (self.between(Some(before.clone()), id.clone())?, moves)
            }
        };
        let outlook = self.agent.outlook(self.name(), &id);
        Ok(Details {
            record: records[at].clone(),
            commit: kept.origin.commit,
            back_by: kept.back_by,
            parked_until_ms: outlook.parked_until_ms,
            is_collected_next: outlook.is_collected_next,
            parts: own,
            predecessor,
            diff,
            moves,
        })
    }

    /// What a release consists of, without what we add.
    async fn parts(&self, id: &ReleaseId) -> Result<Vec<Part>, Failure> {
        let (releases, id) = (self.releases(), id.clone());
        let read = tokio::task::spawn_blocking(move || {
            let manifest = releases.manifest(&id)?;
            Ok::<_, ReleaseError>(parts(&manifest, &releases.tree(&id)))
        });
        let failed = |error: String| Failure::ours("the release cannot be read").cause(error);
        let read = read.await.map_err(|error| failed(error.to_string()))?;
        let mut parts = read.map_err(|error| failed(error.to_string()))?;
        parts.retain(|part| {
            part.kind != PartKind::MustUse
                || !is_ours(&format!("wp-content/mu-plugins/{}", part.name))
        });
        Ok(parts)
    }
}
