"""What settings, optimizers, sources, metrics and so on mean, in a sentence: for hovers and completion."""

from __future__ import annotations

from tdsl.compiler.editor.functions_doc import sentences

OPTIMIZERS = sentences("""
SGD  Gradient descent, with momentum where asked.
Adam  Steps scaled by running means of the gradient and of its square; weight decay adds to the gradient.
AdamW  Adam with weight decay apart from the gradient.
RMSprop  Steps scaled by a running mean of the squared gradient.
Adagrad  Steps scaled by the sum of all squared gradients.
Adadelta  Steps scaled by running means of squared gradients and squared steps.
Adamax  Adam with the largest gradient in place of the mean square.
NAdam  Adam with Nesterov momentum.
RAdam  Adam that begins carefully, while its variance is not known well.
Lion  Steps by the sign of a running mean of the gradient.
Muon  Momentum made orthogonal, for matrices.
""")

SCHEDULERS = sentences("""
StepLR  Multiplies the rate by gamma every step_size.
MultiStepLR  Multiplies the rate by gamma at each milestone.
ExponentialLR  Multiplies the rate by gamma each time.
CosineAnnealingLR  Falls to eta_min along half a cosine of length T_max.
CosineAnnealingWarmRestarts  Falls along half a cosine again and again, each T_mult times as long.
LinearLR  Goes in a line from start_factor to end_factor of the rate, over total_iters.
PolynomialLR  Falls to 0 along a polynomial, over total_iters.
ConstantLR  Multiplies the rate by factor until total_iters.
OneCycleLR  Rises to max_lr and falls far below where it began: one cycle for the whole run.
CyclicLR  Goes up and down between base_lr and max_lr.
ReduceLROnPlateau  Multiplies the rate by factor when what it monitors has stopped improving.
WarmupCosine  Rises in a line for warmup, then falls to min_lr along half a cosine until the run ends.
""")

SOURCES = sentences("""
csv  A file of comma-separated values, or of another `delimiter`, with a header; a glob reads many.
parquet  A Parquet file; a glob reads many.
jsonl  A JSON object a line; a glob reads many.
npz  Arrays of an .npz archive, each a column.
npy  One array, as the column `data`.
idx  Images, and labels where given, in the IDX format of MNIST: the columns `image` and `label`.
image_folder  Images in a folder for each class, read as they are needed: the columns `image` and `label`.
text  A text cut into windows of characters or tokens: the columns `tokens` and `targets`.
tokens  Token numbers in a flat file, which stays on disk, cut into windows: the columns `tokens` and `targets`.
safetensors  Tensors of a safetensors file, each a column.
huggingface  A dataset of the Hugging Face hub, or one saved in a folder.
torchvision  A dataset of torchvision: the columns `image` and `label`. Further arguments are those of its class.
python  A map-style dataset class of one's own, as `package.module:Dataset`, made with the further arguments.
synthetic  Random rows in the types of the fields, integers below `classes`.
""")

SPLITS = sentences("""
random  Rows to splits at random, the same for a seed.
stratified  Rows to splits at random, each value of a field in the same proportion.
grouped  Whole groups to splits at random: rows that have one value of a field or a column stay together.
sequential  The first rows to the first split, and so on.
""")

TRANSFORMS = sentences("""
Resize  To a size.
CenterCrop  The middle of the image.
RandomCrop  A piece of a size from a random place.
RandomResizedCrop  A piece of random size and place, resized.
RandomHorizontalFlip  Mirrored left to right, with probability p.
RandomVerticalFlip  Mirrored top to bottom, with probability p.
RandomRotation  Turned by a random angle.
ColorJitter  Brightness, contrast, saturation and hue changed at random.
RandomErasing  A random rectangle erased, with probability p.
Grayscale  To grey.
GaussianBlur  Blurred.
ToTensor  To floats from 0 to 1.
Normalize  Less mean, by std, a value for each channel.
Pad  Padded on all sides.
RandAugment  A few random operations of one strength.
Compose  Several transforms in order.
""")

METRICS = sentences("""
Accuracy  The share of predictions that are right.
Precision  Of what was predicted to be a class, the share that is.
Recall  Of what is a class, the share that was predicted to be.
F1Score  The harmonic mean of precision and recall.
JaccardIndex  Intersection over union: of what is of a class or was predicted to be, the share that is both.
AUROC  The area under the ROC curve.
ROC  True positives against false positives over all thresholds; a plot.
PrecisionRecallCurve  Precision against recall over all thresholds; a plot.
AveragePrecision  The area under the precision-recall curve.
ConfusionMatrix  How often each class was predicted as each; a plot.
CalibrationError  How far confidence is from accuracy; a plot.
MeanSquaredError  The mean squared difference.
MeanAbsoluteError  The mean absolute difference.
R2Score  The share of the variance that is explained.
Perplexity  The exponential of the mean cross-entropy of tokens.
""")

DATA = sentences("""
source  Where the rows come from.
val  A source of its own for validation.
test  A source of its own for testing.
split  How `source` is divided among the splits that have no source of their own.
workers  Processes that read rows ahead.
prefetch  Batches that each worker keeps ready.
shuffle  Whether training visits rows in a new order each epoch.
drop_last  Whether a last batch that is not full is left out.
resident  Whether a whole split stays on the GPU; `auto` does where it fits.
""")

TRAIN = sentences("""
model  The module that is trained, with its arguments.
data  The dataset.
optimizer  How parameters follow their gradients.
scheduler  How the rate changes; several are joined with `|>`.
epochs  How often the data is gone through; a run has this or `steps`.
steps  How many optimizer steps the run takes; a run has this or `epochs`.
batch_size  Rows of a step, over all ranks and accumulated parts.
accumulate  Parts that a batch is computed in; the gradient is that of the full batch.
precision  What matrix products and activations run in; parameters stay in f32.
tf32  Whether f32 products may use TF32.
clip_grad_norm  The largest norm of the gradient; larger ones are scaled down.
ema  A running mean of the parameters, which is what is evaluated.
seed  Of every random stream: initial weights, order of rows, dropout.
deterministic  Whether every operation gives the same bits each time.
freeze  Parameters that are not trained, as globs over their names.
init_from  Weights to begin with.
activation_checkpointing  Modules whose activations are computed again in the backward, as globs over their names.
distributed  How several processes share the work.
loss  What is minimised: one number from a batch.
""")

EVALUATE = sentences("""
metrics  What compares predictions and targets.
split  The split that is evaluated.
compare  From a batch, the prediction (class scores, a logit, or values) and the target.
predict  From a batch, what `tdsl predict` writes out for new rows.
""")

SECTIONS = sentences("""
checkpoint  When the run is saved, and which saves are kept.
checkpoint.every  Steps or epochs between two checkpoints.
checkpoint.keep  How many of the newest stay.
checkpoint.best  The value whose best checkpoint stays, too, as "val/loss".
checkpoint.mode  Whether the best is the smallest or the largest.
checkpoint.resume  Which checkpoint a run goes on from: the newest, none, or a path.
validate  When the validation split is evaluated.
validate.every  Steps or epochs between two validations.
logging  What is written while the run goes on.
logging.every  Steps between two lines.
logging.tensorboard  Whether it is written for TensorBoard.
logging.csv  Whether it is written as CSV.
early_stopping  When the run ends before its time.
early_stopping.monitor  The value that has to improve, as "val/loss".
early_stopping.patience  Validations without improvement before the run ends.
early_stopping.min_delta  The least that counts as an improvement.
early_stopping.mode  Whether smaller or larger is better.
group  Optimizer arguments of their own for the parameters that a glob names.
""")

FACTS = sentences("""
num_classes  The largest label of the data, plus one: of the field `label`, or of the only integer field.
rows  Rows of the data.
vocab_size  Distinct characters of the text.
""")

OTHERS = sentences("""
characters  A token for each distinct character, in the order of their code points.
hf  The tokenizer of a `tokenizer.json`, as the package `tokenizers` of Hugging Face writes it.
column  A column of the data, by its name; `missing` stands for its missing values.
categories  A column of the data whose values are numbered by their places in a list.
columns  Columns of the data stacked in file order, by their names or a glob; `missing` stands for missing values.
standardized  Each column less its mean, divided by its standard deviation, both over the rows of the train split.
EMA  A running mean of the parameters.
weights  Weights for a model of the run, but for those that a glob of `without` names.
ddp  Every rank has all parameters; gradients are added up.
fsdp  Parameters, gradients and optimizer state are divided among the ranks.
range  The integers below n, for a loop or a list of modules.
training  Whether the module is in training.
""")

KEYWORDS = sentences("""
import  Brings in the declarations of another file, by its path from this one.
extern  A Python `nn.Module`, typed here, imported by the emitted code.
const  A compile-time value.
fn  A pure tensor function.
module  A neural-network module.
data  A dataset and how it is read.
train  A training run.
evaluate  How the run of that name is evaluated.
param  A trained tensor of the module.
buffer  A tensor of the module that is not trained.
forward  What the module computes.
field  A column, or an expression over columns, with its type.
transform  What is applied to a field, for every split or the one named.
return  What the body results in.
for  Goes over a list of modules or a range.
if  Chooses by a compile-time value or by `training`.
else  What happens otherwise.
track  Names a scalar that is logged.
assume  States what is known of sizes; the emitted code asserts it.
no_grad  Computes without gradients.
""")

DTYPES = sentences("""
float  Floating point in the precision that the run chooses.
f64  64-bit floating point.
f32  32-bit floating point.
f16  16-bit floating point.
bf16  Brain floating point: 16 bits with the range of f32.
int  64-bit integers.
i64  64-bit integers.
i32  32-bit integers.
i16  16-bit integers.
i8  8-bit integers.
u8  8-bit integers from 0 to 255.
bool  True or false.
""")
