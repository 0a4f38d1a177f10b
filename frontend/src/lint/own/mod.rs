//! kiln's own build checks: what people otherwise ask a second linter for. They look into the shell text of RUN
//! ([`crate::shell`]) and at how instructions follow each other. docs/checks.md explains each one; which of them speak,
//! and what that means, is decided in `config.rs`.
//!
//! One rule a file: a `check` that is called at each instruction (or at FROM, or at the end of the stage) and sees what
//! stands in `Around`. A rule that cannot be sure says nothing: a false alarm costs more than a missed remark.

mod around;
mod packages;

mod add_instead_of_copy;
mod apk_cache_kept;
mod apt_get_missing_yes;
mod apt_install_recommends;
mod apt_instead_of_apt_get;
mod apt_lists_kept;
mod apt_update_alone;
mod apt_version_unpinned;
mod cd_instead_of_workdir;
mod chmod_world_writable;
mod cleanup_in_own_layer;
mod comment_hides_commands;
mod consecutive_runs;
mod copy_before_dependencies;
mod debian_frontend_in_env;
mod download_piped_unchecked;
mod exec_form_not_json;
mod global_arg_in_run;
mod insecure_download;
mod last_user_root;
mod npm_install_instead_of_ci;
mod pip_cache_kept;
mod run_state_lost;
mod secret_value_written;
mod service_in_run;
mod sudo_in_run;
mod unpinned_base_image;
mod useradd_high_uid;
mod yum_cache_kept;
mod yum_missing_yes;
mod zypper_missing_yes;

pub use around::{Base, Notes, StageChecks};

use around::Around;

/// Called at each instruction, before it is applied.
const AT_INSTRUCTION: &[fn(&Around<'_>)] = &[
    add_instead_of_copy::check,
    apk_cache_kept::check,
    apt_get_missing_yes::check,
    apt_install_recommends::check,
    apt_instead_of_apt_get::check,
    apt_lists_kept::check,
    apt_update_alone::check,
    apt_version_unpinned::check,
    cd_instead_of_workdir::check,
    chmod_world_writable::check,
    cleanup_in_own_layer::check,
    comment_hides_commands::check,
    consecutive_runs::check,
    copy_before_dependencies::check,
    debian_frontend_in_env::check,
    download_piped_unchecked::check,
    exec_form_not_json::check,
    global_arg_in_run::check,
    insecure_download::check,
    npm_install_instead_of_ci::check,
    pip_cache_kept::check,
    run_state_lost::check,
    secret_value_written::check,
    service_in_run::check,
    sudo_in_run::check,
    useradd_high_uid::check,
    yum_cache_kept::check,
    yum_missing_yes::check,
    zypper_missing_yes::check,
];

#[cfg(test)]
mod tests;
