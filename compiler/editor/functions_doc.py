"""What each built-in function does, in a sentence: for hovers and completion."""

from __future__ import annotations

from collections.abc import Mapping


def sentences(text: str) -> Mapping[str, str]:
    """`name  sentence` a line."""
    lines = (line.partition("  ") for line in text.strip().splitlines())
    return {name: sentence.strip() for name, _, sentence in lines}


FUNCTIONS = sentences("""
tensor  A constant tensor from numbers and lists of them.
zeros  A tensor of zeros.
ones  A tensor of ones.
full  A tensor filled with one value.
arange  Numbers from start to end (exclusive), a step apart.
linspace  Evenly spaced numbers from start to end, both included.
eye  The identity matrix.
tril  The lower triangle of a matrix; the rest is zero.
triu  The upper triangle of a matrix; the rest is zero.
rand  Random numbers, uniform between 0 and 1.
randn  Random numbers of the standard normal distribution.
randint  Random integers from low to high (exclusive).
zeros_like  Zeros of the shape and dtype of another tensor.
ones_like  Ones of the shape and dtype of another tensor.
full_like  One value in the shape and dtype of another tensor.
rand_like  Uniform random numbers in the shape of another tensor.
randn_like  Normal random numbers in the shape of another tensor.
one_hot  Class numbers as vectors that are 1 at the class and 0 elsewhere.
reshape  The same elements in another shape; one size may be -1, which follows from the others.
view  The same elements in another shape, without a copy.
view_as  The same elements in the shape of another tensor.
reshape_as  The same elements in the shape of another tensor.
flatten  Joins the dimensions from start_dim to end_dim into one.
unflatten  Splits one dimension into several.
transpose  Swaps two dimensions.
swapaxes  Swaps two dimensions.
swapdims  Swaps two dimensions.
T  Swaps the last two dimensions.
mT  Swaps the last two dimensions.
t  The transpose of a matrix.
permute  Puts the dimensions into another order.
squeeze  Drops a dimension of size 1, or all of them.
unsqueeze  Adds a dimension of size 1.
expand  Repeats dimensions of size 1 without copying.
expand_as  Expands to the shape of another tensor.
expand_to  Repeats dimensions of size 1 without copying.
broadcast_to  Repeats dimensions of size 1 without copying.
repeat_interleave  Repeats each element along a dimension.
cat  Joins tensors along a dimension that they have.
concat  Joins tensors along a dimension that they have.
concatenate  Joins tensors along a dimension that they have.
stack  Joins tensors of one shape along a new dimension.
hstack  Joins tensors along their columns.
vstack  Joins tensors along their rows.
split  Pieces of a given size, or of given sizes, along a dimension.
tensor_split  A given number of pieces along a dimension, or pieces at given places.
chunk  A given number of equal pieces along a dimension.
unbind  The slices along a dimension, which is dropped.
narrow  Elements start to start + length of a dimension.
select  One slice along a dimension, which is dropped.
gather  Picks elements along a dimension by a tensor of indices.
scatter  Writes values along a dimension at the places that a tensor of indices names.
scatter_add  Adds values along a dimension at the places that a tensor of indices names.
index_select  Picks slices along a dimension by a vector of indices.
index_add  Adds slices along a dimension at the places that a vector of indices names.
index_copy  Writes slices along a dimension at the places that a vector of indices names.
index_fill  Fills slices along a dimension with one value.
take_along_dim  Picks elements along a dimension by a tensor of indices.
masked_select  The elements where a mask is true.
roll  Shifts elements along dimensions; what falls off comes in at the other end.
flip  Reverses the order along dimensions.
fliplr  Reverses the order of the columns.
flipud  Reverses the order of the rows.
rot90  Turns a tensor by quarter turns in the plane of two dimensions.
pad  Adds elements before and after the last dimensions.
masked_fill  Puts a value where a mask is true.
where  One tensor where a condition holds, another elsewhere.
tile  Repeats a tensor along its dimensions.
repeat  Repeats elements as an einops pattern says, checked when the program is.
movedim  Moves a dimension to another place.
moveaxis  Moves a dimension to another place.
diagonal  The diagonal of a matrix, or of each matrix of a batch.
diag  The diagonal of a matrix, or a matrix with a given diagonal.
diag_embed  Matrices with given diagonals.
unfold  Windows along a dimension.
add  The sum: `+`.
sub  The difference: `-`.
mul  The product, element by element: `*`.
div  The quotient: `/`.
floor_divide  The quotient rounded down: `//`.
pow  The power: `**`.
eq  Whether elements are equal: `==`.
ne  Whether elements differ: `!=`.
lt  Whether elements are less: `<`.
le  Whether elements are at most: `<=`.
gt  Whether elements are greater: `>`.
ge  Whether elements are at least: `>=`.
abs  The absolute value.
neg  The negative.
sign  -1, 0 or 1 by the sign.
sgn  -1, 0 or 1 by the sign.
exp  The exponential.
exp2  Two to the power of the input.
expm1  The exponential minus 1, accurate near 0.
log  The natural logarithm.
log2  The logarithm to base 2.
log10  The logarithm to base 10.
log1p  The natural logarithm of 1 + input, accurate near 0.
logit  The inverse of the sigmoid.
logaddexp  The logarithm of the sum of two exponentials.
xlogy  x * log(y), and 0 where x is 0.
sqrt  The square root.
rsqrt  One over the square root.
square  The square.
reciprocal  One over the input.
sin  The sine.
cos  The cosine.
tan  The tangent.
asin  The arc sine.
acos  The arc cosine.
atan  The arc tangent.
atan2  The angle of the point (other, input).
sinh  The hyperbolic sine.
cosh  The hyperbolic cosine.
tanh  The hyperbolic tangent.
asinh  The inverse hyperbolic sine.
acosh  The inverse hyperbolic cosine.
atanh  The inverse hyperbolic tangent.
sinc  sin(pi x) / (pi x), and 1 at 0.
hypot  The square root of the sum of two squares.
erf  The error function.
erfc  One minus the error function.
erfinv  The inverse of the error function.
lgamma  The logarithm of the gamma function's absolute value.
digamma  The derivative of the gamma function's logarithm.
floor  Rounded down.
ceil  Rounded up.
round  Rounded to the nearest integer, halves to even.
trunc  Rounded towards 0.
frac  What `trunc` cuts off.
clamp  Limited to a smallest and a largest value.
clip  Limited to a smallest and a largest value.
minimum  The smaller of two, element by element.
maximum  The larger of two, element by element.
fmin  The smaller of two, NaN where both are.
fmax  The larger of two, NaN where both are.
lerp  Between start and end by a weight.
addcmul  input + value * tensor1 * tensor2.
addcdiv  input + value * tensor1 / tensor2.
fmod  The remainder with the sign of the dividend.
remainder  The remainder with the sign of the divisor: `%`.
logical_and  True where both are not 0.
logical_or  True where one of both is not 0.
logical_xor  True where exactly one of both is not 0.
logical_not  True where the input is 0.
isnan  Whether elements are NaN.
isinf  Whether elements are infinite.
isfinite  Whether elements are neither NaN nor infinite.
isclose  Whether elements are nearly equal.
nan_to_num  NaN and infinities replaced by numbers.
copysign  The size of one with the sign of another.
heaviside  0 below 0, 1 above, and given values at 0.
deg2rad  Degrees to radians.
rad2deg  Radians to degrees.
cast  Converts to a dtype.
type_as  Converts to the dtype of another tensor.
contiguous  The same elements, in order in memory.
clone  A copy.
numel  The number of elements, a compile-time value.
to  Converts to a dtype.
float  Converts to the floating-point precision of the run.
int  Converts to 64-bit integers.
bool  Converts to true where not 0.
sum  The sum over dimensions, or over all.
mean  The mean over dimensions, or over all.
prod  The product over a dimension, or over all.
max  The largest element; with a dimension, also where it is; with a tensor, the larger of both.
min  The smallest element; with a dimension, also where it is; with a tensor, the smaller of both.
amax  The largest elements over dimensions.
amin  The smallest elements over dimensions.
aminmax  The smallest and the largest elements.
argmax  Where the largest element is.
argmin  Where the smallest element is.
argsort  The indices that sort a dimension.
var  The variance over dimensions; correction is 1 unless given.
std  The standard deviation over dimensions; correction is 1 unless given.
var_mean  The variance and the mean over dimensions.
std_mean  The standard deviation and the mean over dimensions.
norm  The norm over dimensions, by default the Euclidean one.
nansum  The sum, NaN counted as 0.
nanmean  The mean of what is not NaN.
logsumexp  The logarithm of the sum of exponentials, without overflow.
all  Whether all elements are true.
any  Whether an element is true.
count_nonzero  How many elements are not 0.
cumsum  Sums of all elements so far along a dimension.
cumprod  Products of all elements so far along a dimension.
cummax  The largest element so far along a dimension, and where it is.
cummin  The smallest element so far along a dimension, and where it is.
logcumsumexp  `logsumexp` of all elements so far along a dimension.
diff  Differences of neighbours along a dimension.
topk  The k largest elements along a dimension, and where they are.
kthvalue  The k-th smallest element along a dimension, and where it is.
sort  The elements of a dimension in order, and where they were.
median  The median; with a dimension, also where it is.
nanmedian  The median of what is not NaN.
quantile  Quantiles along a dimension.
mode  The most frequent element along a dimension, and where it is.
size  The size of a dimension, a compile-time value.
matmul  The matrix product: `@`; leading dimensions are broadcast.
mm  The product of two matrices.
bmm  The products of two batches of matrices.
mv  The product of a matrix and a vector.
addmm  A matrix plus the product of two others.
baddbmm  A batch of matrices plus the products of two others.
addmv  A vector plus the product of a matrix and a vector.
addbmm  A matrix plus the summed products of two batches of matrices.
einsum  Products summed over the letters that the result leaves out, checked when the program is.
outer  The outer product of two vectors.
inner  The products summed over the last dimension.
dot  The inner product of two vectors.
vdot  The inner product of two vectors.
kron  The Kronecker product.
cross  The cross product of vectors of three elements.
tensordot  Products summed over given dimensions of both.
trace  The sum of a matrix's diagonal.
det  The determinant of square matrices.
inverse  The inverse of square matrices.
cdist  Distances between all pairs of rows.
relu  The larger of 0 and the input.
relu6  The input limited to 0 to 6.
leaky_relu  The input where positive, a small multiple of it elsewhere.
elu  The input where positive, alpha * (exp(x) - 1) elsewhere.
selu  A scaled ELU that keeps mean and variance.
celu  The continuously differentiable ELU.
gelu  The Gaussian error linear unit: x times the normal distribution's share below x.
silu  x * sigmoid(x), also called swish.
mish  x * tanh(softplus(x)).
sigmoid  1 / (1 + exp(-x)).
logsigmoid  The logarithm of the sigmoid, without overflow.
hardsigmoid  A sigmoid made of straight lines.
hardswish  x times the hard sigmoid.
hardtanh  The input limited to a range, by default -1 to 1.
hardshrink  0 within lambd of 0, the input elsewhere.
softshrink  0 within lambd of 0, elsewhere the input moved towards 0 by it.
tanhshrink  x - tanh(x).
softplus  log(1 + exp(x)), a smooth ReLU.
softsign  x / (1 + |x|).
softmax  Exponentials divided by their sum along a dimension.
softmin  Softmax of the negative.
log_softmax  The logarithm of the softmax, without overflow.
glu  One half of a dimension times the sigmoid of the other.
prelu  The input where positive, a learned multiple of it elsewhere.
rrelu  The input where positive, a multiple of it elsewhere that is random in training.
threshold  The input where above a threshold, a value elsewhere.
normalize  Divides by the norm along a dimension.
linear  x @ weight.T + bias.
bilinear  x1 @ weight @ x2 + bias.
conv1d  Convolution over one dimension of [B, C, L].
conv2d  Convolution over two dimensions of [B, C, H, W].
conv3d  Convolution over three dimensions of [B, C, D, H, W].
conv_transpose1d  Transposed convolution over one dimension.
conv_transpose2d  Transposed convolution over two dimensions.
conv_transpose3d  Transposed convolution over three dimensions.
max_pool1d  The largest element of each window of one dimension.
max_pool2d  The largest element of each window of two dimensions.
max_pool3d  The largest element of each window of three dimensions.
avg_pool1d  The mean of each window of one dimension.
avg_pool2d  The mean of each window of two dimensions.
avg_pool3d  The mean of each window of three dimensions.
lp_pool1d  The p-norm of each window of one dimension.
lp_pool2d  The p-norm of each window of two dimensions.
adaptive_avg_pool1d  Means over as many windows as the output has.
adaptive_avg_pool2d  Means over as many windows as the output has, in both dimensions.
adaptive_avg_pool3d  Means over as many windows as the output has, in three dimensions.
adaptive_max_pool1d  The largest elements of as many windows as the output has.
adaptive_max_pool2d  The largest elements of as many windows as the output has, in both dimensions.
adaptive_max_pool3d  The largest elements of as many windows as the output has, in three dimensions.
layer_norm  Normalises the last dimensions to mean 0 and variance 1.
rms_norm  Divides by the root mean square over the last dimensions.
group_norm  Normalises groups of channels to mean 0 and variance 1.
batch_norm  Normalises each channel over the batch in training, by running statistics in evaluation.
instance_norm  Normalises each channel of each example.
local_response_norm  Divides by a sum of squares over neighbouring channels.
embedding  Rows of a table by their numbers.
embedding_bag  Sums or means of rows of a table, a bag at a time.
interpolate  Resizes the last dimensions.
upsample  Resizes the last dimensions.
pixel_shuffle  Moves channels into space: [B, C r r, H, W] to [B, C, H r, W r].
pixel_unshuffle  Moves space into channels: [B, C, H r, W r] to [B, C r r, H, W].
channel_shuffle  Mixes the channels of groups.
grid_sample  Samples an image at the places that a grid names.
affine_grid  The grid of an affine map, for `grid_sample`.
fold  Sums windows back into an image.
dropout  In training, zeroes elements with probability p and scales the others up.
dropout1d  In training, zeroes whole channels with probability p.
dropout2d  In training, zeroes whole channels with probability p.
dropout3d  In training, zeroes whole channels with probability p.
alpha_dropout  Dropout that keeps mean and variance, for SELU.
feature_alpha_dropout  Alpha dropout of whole channels.
bernoulli  1 with the probability that the input says, else 0.
multinomial  Draws class numbers by their weights.
normal  Random numbers of a normal distribution.
attention  softmax(q k' / sqrt(d)) v on [B, H, T, D], with causal and windowed masks and grouped-query heads.
scaled_dot_product_attention  softmax(q k' / sqrt(d)) v on [B, H, T, D].
rope  Rotary position embedding: turns pairs of features by angles that grow with the position.
alibi  Attention biases that fall linearly with distance, a slope a head.
rearrange  Splits, permutes and joins dimensions as an einops pattern says, checked when the program is.
reduce  Reduces dimensions as an einops pattern says, checked when the program is.
detach  The same values, without a gradient.
grad  The gradient of a scalar with respect to a tensor, itself differentiable.
mse_loss  The mean squared difference.
l1_loss  The mean absolute difference.
smooth_l1_loss  Squared below beta, absolute above it.
huber_loss  Squared below delta, delta times absolute above it.
cross_entropy  The negative log-likelihood of classes, from scores (logits): applies log_softmax itself.
nll_loss  The negative log-likelihood of classes, from log-probabilities.
binary_cross_entropy  Cross-entropy of two classes, from probabilities.
binary_cross_entropy_with_logits  Cross-entropy of two classes, from logits: applies the sigmoid itself.
kl_div  The Kullback-Leibler divergence, from log-probabilities.
triplet_margin_loss  How much nearer an anchor is to its negative than to its positive, plus a margin.
triplet_margin_with_distance_loss  The triplet loss with a distance of one's own.
margin_ranking_loss  Whether two scores are in the order that the target says, by a margin.
cosine_embedding_loss  Pulls pairs together or apart by their cosine.
hinge_embedding_loss  Pulls distances down, or beyond a margin.
multi_margin_loss  The hinge loss of several classes.
multilabel_margin_loss  The hinge loss of several labels.
multilabel_soft_margin_loss  Cross-entropy of several labels, from logits.
soft_margin_loss  The logistic loss of labels -1 and 1.
gaussian_nll_loss  The negative log-likelihood of a normal distribution.
poisson_nll_loss  The negative log-likelihood of a Poisson distribution.
ctc_loss  Connectionist temporal classification: labels of a sequence without their alignment.
cosine_similarity  The cosine of the angle between vectors along a dimension.
pairwise_distance  The p-norm of the differences of rows.
pdist  Distances between all pairs of rows of one matrix.
""")
