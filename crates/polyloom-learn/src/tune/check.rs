//! Whether the values of a recipe can be.

use polyloom::MergeError;

use super::recipe::{Loss, Method, On, Per, Recipe};

impl Recipe {
    /// Whether the values can be.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> Result<(), MergeError> {
        let t = &self.tune;
        let bad = |what: String| Err(MergeError::plan("bad-recipe", what));
        if self.experts.is_empty() {
            let error = MergeError::plan("bad-recipe", "names no experts");
            return Err(error.hint("[[expert]] path = \"...\", or experts on the command line"));
        }
        if let Some(i) = self.experts.iter().position(|e| e.path.is_empty()) {
            return bad(format!("expert {} has no `path`", i + 1));
        }
        if self.tasks().is_empty() {
            let error =
                MergeError::plan("bad-recipe", "names no task to learn the coefficients on");
            return Err(error.hint("task = \"...\" of every expert, or tune.tasks = [\"...\"]"));
        }
        if t.epochs.is_some() && t.steps.is_some() {
            return bad("has both `tune.epochs` and `tune.steps`; give one of them".into());
        }
        if t.steps == Some(0) || t.epochs.is_some_and(|e| !(e > 0.0 && e.is_finite())) {
            return bad("`tune.steps` and `tune.epochs` must be above 0".into());
        }
        if t.groups == 0 || t.batch == Some(0) || t.limit == Some(0) || t.max_length == Some(0) {
            return bad(
                "`tune.groups`, `batch`, `limit` and `max_length` must be at least 1".into(),
            );
        }
        if t.shots == Some(0) {
            return bad("`tune.shots` must be at least 1".into());
        }
        let share = (0.0..=1.0).contains(&t.confidence);
        if !(share && t.augment.is_finite() && t.augment >= 0.0) {
            return bad("`tune.confidence` must be in 0 to 1, `tune.augment` at least 0".into());
        }
        if t.groups > 1 && self.per() == Per::Task {
            return bad("`tune.groups` splits tensors; it needs `per = \"tensor\"`".into());
        }
        if t.density.is_some_and(|d| !(d > 0.0 && d <= 1.0)) {
            return bad("`tune.density` must be above 0 and at most 1".into());
        }
        if !(t.temperature > 0.0 && t.temperature.is_finite()) || t.mask_steps == 0 {
            return bad("`tune.temperature` and `tune.mask_steps` must be above 0".into());
        }
        if t.method == Method::Concrete
            && t.on == On::TaskArithmetic
            && (t.steps.is_some() || t.epochs.is_some())
        {
            let error = MergeError::plan(
                "bad-recipe",
                "`tune.steps` are steps of coefficients, which stay with `on = \"task_arithmetic\"`",
            );
            return Err(error.hint("tune.mask_steps counts those of the mask; on = \"adamerging\" learns coefficients after it"));
        }
        let at_least_0 = [
            ("mask_rate", t.mask_rate),
            ("inner_rate", t.inner_rate),
            ("rate", self.rate()),
            ("eps", t.eps),
            ("decay", self.decay()),
            ("clip", self.clip()),
            ("penalty", t.penalty),
        ];
        for (name, x) in at_least_0 {
            if !(x.is_finite() && x >= 0.0) {
                return bad(format!("`tune.{name}` is {x}; it must be at least 0"));
            }
        }
        crate::recipe::temperature(t.similarity_temperature, "tune.similarity_temperature")?;
        self.check_vectors()?;
        if !self.init().is_finite() {
            return bad(format!("`tune.init` is {}", self.init()));
        }
        if t.betas.iter().any(|b| !(0.0..1.0).contains(b)) {
            return bad(format!(
                "`tune.betas` is {:?}; both must be in 0 to below 1",
                t.betas
            ));
        }
        if !(t.penalty_power >= 1.0 && t.penalty_power.is_finite()) {
            return bad(format!(
                "`tune.penalty_power` is {}; it must be at least 1",
                t.penalty_power
            ));
        }
        self.dtype()?;
        Ok(())
    }

    /// What a position and losses of vectors do not go with.
    fn check_vectors(&self) -> Result<(), MergeError> {
        let t = &self.tune;
        let bad = |what: &str, hint: &str| Err(MergeError::plan("bad-recipe", what).hint(hint));
        if self.loss() == Loss::Contrastive && t.heads.is_some() {
            return bad(
                "`tune.heads` is a folder of heads, which tasks of vectors do not have",
                "leave it out",
            );
        }
        if self.loss() == Loss::Contrastive && t.shots.is_some() {
            return bad(
                "`tune.shots` counts rows of a class, which tasks of vectors do not have",
                "tune.limit takes so many rows of each task",
            );
        }
        if t.method != Method::SelfPositioning {
            return Ok(());
        }
        if self.init() <= 0.0 {
            return bad(
                "`tune.init` is where the length `mu` begins; it must be above 0",
                "1 begins with the experts' average",
            );
        }
        if t.clamp.is_some() {
            return bad(
                "`tune.clamp` is about free coefficients; a position is `mu softmax(z)`",
                "leave it out",
            );
        }
        if self.loss() != Loss::Contrastive {
            return bad(
                "method \"self_positioning\" is learned by the contrastive loss of embedding models",
                "leave tune.loss out; method \"adamerging\" or \"atlas\" takes others",
            );
        }
        Ok(())
    }
}
