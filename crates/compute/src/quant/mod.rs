//! Quant block formats: layouts, dequantisation, quantisation, and the scalar dot products that
//! specify the canonical arithmetic.
