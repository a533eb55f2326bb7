//! Deploys in rows, and the statistics over them.

use crate::control::{IncidentReply, ROWS_MAX};
use crate::daemon::incidents::Incidents;
use crate::daemon::incidents::requests::{Refusal, failed, gone};
use crate::daemon::services::ServiceHandles;
use crate::incident::{HistoryRow, ReportBuilder, summarise};
use crate::model::Moment;
use crate::record;

impl Incidents {
    /// The deploys of a service, newest first.
    pub(super) async fn history(
        &self,
        service: &str,
        handles: &ServiceHandles,
    ) -> Result<Vec<IncidentReply>, Refusal> {
        let rows = self.deploys(service, handles).await?;
        Ok(rows.into_iter().map(IncidentReply::Deploy).collect())
    }

    /// The statistics over one service, or all.
    pub(super) async fn report(
        &self,
        service: Option<&str>,
        since_s: u64,
        handles: &ServiceHandles,
    ) -> Result<Vec<IncidentReply>, Refusal> {
        let now = self.0.clock.now();
        let since = Moment(now.0.saturating_sub(since_s.saturating_mul(1_000)));
        let mut report = ReportBuilder::new(since, now);
        for name in self.0.services.keys().filter(|name| service.is_none_or(|it| it == *name)) {
            let deploys = self.deploys(name, handles).await?;
            let max = self.service_settings(name).map(|it| it.slo.max_false_rollback);
            let incidents = self.service(name).ok_or_else(gone)?;
            report.add(name, max.unwrap_or_default(), &deploys, incidents.all());
        }
        Ok(vec![IncidentReply::Report(Box::new(report.finish()))])
    }

    /// The deploys of a service whose timelines are kept, newest first.
    async fn deploys(
        &self,
        service: &str,
        handles: &ServiceHandles,
    ) -> Result<Vec<HistoryRow>, Refusal> {
        let Some(dir) = handles.get(service).map(|it| it.dir().to_owned()) else {
            return Err(gone());
        };
        let bake = self.service_settings(service).map(|it| it.policy.bake).unwrap_or_default();
        let bake_ms = u64::try_from(bake.as_millis()).unwrap_or(u64::MAX);
        let rows = tokio::task::spawn_blocking(move || {
            let deploys = record::list_deploys(&dir).unwrap_or_default();
            let numbers = deploys.into_iter().map(|(number, _)| number).rev().take(ROWS_MAX);
            let read = numbers.filter_map(|it| record::read_deploy(&dir, Some(it)).ok());
            read.filter_map(|entries| summarise(&entries, bake_ms))
                .map(|it| it.row().clone())
                .collect::<Vec<_>>()
        });
        rows.await.map_err(|error| failed(error.to_string()))
    }
}
