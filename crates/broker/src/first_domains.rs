//! The domains that a new cluster begins with: `bootstrap.domains_dir`.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::config::NodeConfig;
use crate::controller::Controller;
use crate::domain::DomainDefinition;
use crate::fatal::FatalSignal;
use crate::groups::Groups;
use crate::server::StartError;

/// The first leader of the controller defines the first domains.
pub(crate) fn define_when_leading(
    config: &NodeConfig,
    groups: &Groups,
    fatal: &FatalSignal,
    stopping: &CancellationToken,
) {
    let (config, controller) = (config.clone(), groups.controller.clone());
    let (fatal, stopping) = (fatal.clone(), stopping.clone());
    groups.tasks.spawn(async move {
        tokio::select! {
            led = controller.leads() => if !led { return },
            () = stopping.cancelled() => return,
        }
        if controller.metadata().is_newborn()
            && let Err(error) = define(&config, &controller).await
        {
            fatal.raise(error);
        }
    });
}

pub(crate) async fn define(config: &NodeConfig, controller: &Controller) -> Result<(), StartError> {
    let Some(dir) = &config.bootstrap.domains_dir else { return Ok(()) };
    let failed = |file: PathBuf, reason: String| StartError::Domain { file, reason };
    let entries = std::fs::read_dir(dir).map_err(|e| failed(dir.clone(), e.to_string()))?;
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let mut definitions = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text =
            std::fs::read_to_string(&file).map_err(|e| failed(file.clone(), e.to_string()))?;
        let definition = DomainDefinition::from_json_named(&name, &text)
            .map_err(|e| failed(file.clone(), e.to_string()))?;
        definition.check_supported().map_err(|e| failed(file.clone(), e.to_string()))?;
        tracing::info!(domain = name, "domain defined");
        for problem in definition.without_effect() {
            tracing::warn!(domain = name, %problem, "a field of the domain has no effect");
        }
        definitions.push(definition);
    }
    let defined = controller.define_first(definitions).await;
    defined.map_err(|e| failed(dir.clone(), e.to_string()))
}
