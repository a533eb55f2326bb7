//! What a person asks for: looked at, decided, and answered.

use std::time::Duration;

use crate::artifact;
use crate::artifact::Verifier;
use crate::config::{Runtime, Service};
use crate::model::{
    Command, CommandRequest, Decision, Moment, ProbeResult, Release, TimelineEvent,
};
use crate::service::inbox::{CommandError, CommandReply, ServiceMessage, Shutdown};
use crate::service::service_loop::ServiceLoop;

impl ServiceLoop {
    /// A command. A deploy has its artifact looked at first, which may take long; what would be
    /// refused anyway is refused at once.
    pub(crate) fn handle_command(
        &mut self,
        now: Moment,
        order: CommandRequest,
        reply: CommandReply,
    ) {
        let Some(artifact) = requested_artifact(&order) else {
            return self.apply_command(now, order, None, reply);
        };
        if let Err(refusal) = self.watch.on_command(now, order.clone()) {
            let _ = reply.send(Err(CommandError::Refused(refusal)));
            return;
        }
        let (kind, podman) = (self.service.artifact, self.artifact_guard.podman.clone());
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            match artifact::resolve(kind, &artifact, podman.as_ref()).await {
                // Whoever asked left while it was read, and does not know that it would go on.
                Ok(_) if reply.is_closed() => (),
                Ok(resolved) => {
                    let order = with_resolved_artifact(order, &resolved);
                    let _ = inbox
                        .send(ServiceMessage::ResolvedCommand(order, resolved.verifier, reply))
                        .await;
                }
                Err(error) => _ = reply.send(Err(CommandError::ArtifactUnusable(error))),
            }
        });
    }

    /// A command of which everything is known.
    pub(crate) fn apply_command(
        &mut self,
        now: Moment,
        order: CommandRequest,
        verifier: Option<Verifier>,
        reply: CommandReply,
    ) {
        let forced = matches!(&order.command, Command::Deploy(deploy) if deploy.force);
        let is_probe_ok = |number| self.last_probes.get(&number).map(ProbeResult::is_ok);
        let decided = self.watch.on_command(now, order).and_then(|decision| {
            let permitted = if forced {
                Ok(())
            } else {
                self.watch.keeps_a_healthy_release(&decision, is_probe_ok)
            };
            permitted.map(|()| decision)
        });
        let entry = match decided {
            Ok(decision) => {
                let deployed = deployed_release(&decision);
                if let Some((release, verifier)) = deployed.as_ref().zip(verifier) {
                    self.artifact_guard.insert(release.number, verifier);
                }
                let entry = self.record_and_apply(decision).map_err(CommandError::NotRecorded);
                if let Some(release) = deployed.filter(|_| entry.is_ok()) {
                    let needed =
                        self.watch.phase().required_releases().iter().map(|it| it.number).collect();
                    self.artifact_guard.pin_image(&self.service, &release, needed);
                }
                entry
            }
            Err(refusal) => Err(CommandError::Refused(refusal)),
        };
        let _ = reply.send(entry);
    }

    /// How long a stop may take, at most.
    pub(crate) fn stop_timeout(service: &Service, shutdown: Shutdown) -> Duration {
        let margin = Duration::from_secs(2);
        let drain =
            if shutdown.drain { service.policy.drain_timeout + margin } else { Duration::ZERO };
        drain
            + match &service.runtime {
                Runtime::Command(command) => command.stop_timeout + Duration::from_secs(3),
                Runtime::External | Runtime::Systemd(_) => Duration::from_secs(3),
            }
    }
}

fn requested_artifact(order: &CommandRequest) -> Option<String> {
    match &order.command {
        Command::Deploy(deploy) => deploy.artifact.clone(),
        Command::Rollback { .. } | Command::Hold { .. } | Command::Resume { .. } => None,
    }
}

/// The same order, with what its artifact is.
fn with_resolved_artifact(
    mut order: CommandRequest,
    resolved: &artifact::ResolvedArtifact,
) -> CommandRequest {
    if let Command::Deploy(deploy) = &mut order.command {
        deploy.artifact = Some(resolved.artifact.clone());
        deploy.digest = resolved.digest().map(ToString::to_string);
    }
    order
}

/// The release that a decision brings.
fn deployed_release(decision: &Decision) -> Option<Release> {
    match &decision.event {
        TimelineEvent::Deployed { release, .. } => Some(release.clone()),
        _ => None,
    }
}
