//! What can be typed about dynamic logits fusion.

use clap::Args;

/// What small experts learned, put into a large model's answers.
#[derive(Debug, Clone, Args)]
pub struct FuseArgs {
    /// Small experts whose change from --fuse-base is put into the model's logits (dynamic logits fusion)
    #[arg(
        long,
        value_name = "MODEL,...",
        value_delimiter = ',',
        requires = "fuse_base"
    )]
    pub fuse: Vec<String>,
    /// The small model that the experts of --fuse were tuned from
    #[arg(long, value_name = "MODEL", requires = "fuse")]
    pub fuse_base: Option<String>,
    /// Try all combinations of weights, not one expert at a time
    #[arg(long, requires = "fuse")]
    pub fuse_full: bool,
}
