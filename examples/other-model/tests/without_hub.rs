//! What this crate does without: headroom's feature `hub`, which downloads.

use lm_headroom::checkpoint::hub::{HubError, HubSettings, ModelName};

#[test]
fn a_model_that_is_not_in_the_cache_is_refused_with_the_feature_that_downloads() {
    let Ok(ModelName::Hub(model)) = ModelName::parse("org/name") else { panic!("org/name is no folder here") };
    let settings = HubSettings::new(std::env::temp_dir().join("headroom-no-such-cache"));
    assert_eq!(model.cached(&settings), None);
    let error = model.resolve(&settings, &mut ()).expect_err("nothing can download");
    assert!(matches!(error, HubError::WithoutClient { .. }), "{error}");
    assert!(error.to_string().contains("org/name") && error.to_string().contains("feature `hub`"), "{error}");
}
