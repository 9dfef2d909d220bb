"""What each built-in layer and initializer does, in a sentence."""

from __future__ import annotations

from tdsl.compiler.editor.functions_doc import sentences

LAYERS = sentences("""
Linear  x @ weight.T + bias; `_` takes in_features from the input.
Bilinear  x1 @ weight @ x2 + bias.
Conv1d  Convolution over [B, C, L].
Conv2d  Convolution over [B, C, H, W].
Conv3d  Convolution over [B, C, D, H, W].
ConvTranspose1d  Transposed convolution over [B, C, L].
ConvTranspose2d  Transposed convolution over [B, C, H, W].
ConvTranspose3d  Transposed convolution over [B, C, D, H, W].
Embedding  A table whose rows are looked up by their numbers.
EmbeddingBag  Sums or means of rows of a table.
LayerNorm  Normalises the last dimensions to mean 0 and variance 1, then scales and shifts.
RMSNorm  Divides by the root mean square over the last dimensions, then scales.
GroupNorm  Normalises groups of channels, then scales and shifts.
BatchNorm1d  Normalises each channel of [B, C] or [B, C, L] over the batch.
BatchNorm2d  Normalises each channel of [B, C, H, W] over the batch.
BatchNorm3d  Normalises each channel of [B, C, D, H, W] over the batch.
InstanceNorm1d  Normalises each channel of each example of [B, C, L].
InstanceNorm2d  Normalises each channel of each example of [B, C, H, W].
InstanceNorm3d  Normalises each channel of each example of [B, C, D, H, W].
LocalResponseNorm  Divides by a sum of squares over neighbouring channels.
CrossMapLRN2d  Divides by a sum of squares over neighbouring channels.
Dropout  In training, zeroes elements with probability p and scales the others up.
Dropout1d  In training, zeroes whole channels with probability p.
Dropout2d  In training, zeroes whole channels with probability p.
Dropout3d  In training, zeroes whole channels with probability p.
AlphaDropout  Dropout that keeps mean and variance, for SELU.
FeatureAlphaDropout  Alpha dropout of whole channels.
MaxPool1d  The largest element of each window of one dimension.
MaxPool2d  The largest element of each window of two dimensions.
MaxPool3d  The largest element of each window of three dimensions.
AvgPool1d  The mean of each window of one dimension.
AvgPool2d  The mean of each window of two dimensions.
AvgPool3d  The mean of each window of three dimensions.
LPPool1d  The p-norm of each window of one dimension.
LPPool2d  The p-norm of each window of two dimensions.
AdaptiveAvgPool1d  Means over as many windows as the output has.
AdaptiveAvgPool2d  Means over as many windows as the output has, in both dimensions.
AdaptiveAvgPool3d  Means over as many windows as the output has, in three dimensions.
AdaptiveMaxPool1d  The largest elements of as many windows as the output has.
AdaptiveMaxPool2d  The largest elements of as many windows as the output has, in both dimensions.
AdaptiveMaxPool3d  The largest elements of as many windows as the output has, in three dimensions.
Flatten  Joins the dimensions from start_dim to end_dim into one.
Unflatten  Splits one dimension into several.
Identity  Its input.
Upsample  Resizes the last dimensions.
UpsamplingNearest2d  Resizes images by their nearest pixels.
UpsamplingBilinear2d  Resizes images between their pixels.
PixelShuffle  Moves channels into space: [B, C r r, H, W] to [B, C, H r, W r].
PixelUnshuffle  Moves space into channels: [B, C, H r, W r] to [B, C r r, H, W].
ChannelShuffle  Mixes the channels of groups.
ZeroPad1d  Adds zeros before and after the last dimension.
ZeroPad2d  Adds zeros around images.
ConstantPad1d  Adds a value before and after the last dimension.
ConstantPad2d  Adds a value around images.
ReflectionPad1d  Extends the last dimension by its mirror image.
ReflectionPad2d  Extends images by their mirror images.
ReplicationPad1d  Extends the last dimension by its edges.
ReplicationPad2d  Extends images by their edges.
CircularPad1d  Extends the last dimension by its other end.
CircularPad2d  Extends images by their other ends.
MultiheadAttention  Attention of several heads, with its projections.
LSTM  Long short-term memory over a sequence.
GRU  Gated recurrent units over a sequence.
RNN  The Elman network over a sequence.
LSTMCell  One step of long short-term memory.
GRUCell  One step of gated recurrent units.
RNNCell  One step of the Elman network.
TransformerEncoderLayer  Self-attention and a feed-forward network.
Sequential  Layers one after another.
CosineSimilarity  The cosine of the angle between vectors along a dimension.
PairwiseDistance  The p-norm of the differences of rows.
ReLU  The larger of 0 and the input.
ReLU6  The input limited to 0 to 6.
LeakyReLU  The input where positive, a small multiple of it elsewhere.
PReLU  The input where positive, a learned multiple of it elsewhere.
RReLU  The input where positive, a multiple of it elsewhere that is random in training.
ELU  The input where positive, alpha * (exp(x) - 1) elsewhere.
SELU  A scaled ELU that keeps mean and variance.
CELU  The continuously differentiable ELU.
GELU  The Gaussian error linear unit.
SiLU  x * sigmoid(x), also called swish.
Mish  x * tanh(softplus(x)).
Sigmoid  1 / (1 + exp(-x)).
LogSigmoid  The logarithm of the sigmoid, without overflow.
Hardsigmoid  A sigmoid made of straight lines.
Hardswish  x times the hard sigmoid.
Hardtanh  The input limited to a range, by default -1 to 1.
Hardshrink  0 within lambd of 0, the input elsewhere.
Softshrink  0 within lambd of 0, elsewhere the input moved towards 0 by it.
Tanhshrink  x - tanh(x).
Tanh  The hyperbolic tangent.
Softplus  log(1 + exp(x)), a smooth ReLU.
Softsign  x / (1 + |x|).
Softmax  Exponentials divided by their sum along a dimension.
Softmax2d  Softmax over the channels of images.
Softmin  Softmax of the negative.
LogSoftmax  The logarithm of the softmax, without overflow.
GLU  One half of a dimension times the sigmoid of the other.
Threshold  The input where above a threshold, a value elsewhere.
""")

INITIALIZERS = sentences("""
zeros  All 0.
ones  All 1.
eye  The identity matrix.
constant  One value.
normal  A normal distribution.
uniform  Uniform from a to b.
trunc_normal  A normal distribution cut off at a and b.
xavier_uniform  Uniform, with a width that keeps the variance of a linear layer.
xavier_normal  Normal, with a deviation that keeps the variance of a linear layer.
kaiming_uniform  Uniform, with a width that keeps the variance before a rectifier.
kaiming_normal  Normal, with a deviation that keeps the variance before a rectifier.
orthogonal  A matrix with orthogonal rows or columns.
dirac  Keeps the channels of a convolution's input.
sparse  A normal distribution, with a share of each column 0.
""")
