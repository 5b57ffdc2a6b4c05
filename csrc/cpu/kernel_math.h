// Elementary functions over Lanes. Included once per instruction set, inside its namespace.

#ifndef MODELSAT_CPU_KERNEL_MATH_H_
#define MODELSAT_CPU_KERNEL_MATH_H_

// x = 2^x for x <= 0; 0 below -126. Relative error 2.2e-7: x = n + f with |f| <= 1/2, and the
// minimax polynomial of degree 5 for 2^f.
template <int kVectors>
inline __attribute__((always_inline)) void Exp2NonPositive(Lanes (&x)[kVectors]) {
  constexpr float kCoefficients[] = {1.000000119e+00f, 6.931469440e-01f, 2.402212024e-01f,
                                     5.550713465e-02f, 9.675540961e-03f, 1.327646663e-03f};
  const Lanes smallest = Broadcast(-126.0f);
  Lanes n[kVectors];
  Lanes f[kVectors];
  Lanes y[kVectors];
#pragma GCC unroll 6
  for (int v = 0; v < kVectors; ++v) {
    const Lanes clamped = Max(x[v], smallest);
    n[v] = Round(clamped);
    f[v] = Sub(clamped, n[v]);
    y[v] = Broadcast(kCoefficients[5]);
  }
#pragma GCC unroll 5
  for (int i = 4; i >= 0; --i) {
    const Lanes coefficient = Broadcast(kCoefficients[i]);
#pragma GCC unroll 6
    for (int v = 0; v < kVectors; ++v) y[v] = Fma(y[v], f[v], coefficient);
  }
#pragma GCC unroll 6
  for (int v = 0; v < kVectors; ++v) {
    x[v] = WhereAtLeast(x[v], smallest, Mul(y[v], PowerOfTwo(n[v])));
  }
}

// x * Phi(x) with Phi(x) = 1/2 + c p(c^2), c = x held within +-4.3, where Phi reaches 0 and 1; p is
// the minimax polynomial of degree 8 for that. Absolute error below 5e-5, a small part of the
// step to which the result is rounded next. Several vectors side by side, because one polynomial
// is a chain in which each step waits for the one before.
template <int kVectors>
inline __attribute__((always_inline)) void Gelu(Lanes (&x)[kVectors]) {
  constexpr float kCoefficients[] = {3.986907899e-01f,  -6.594495475e-02f, 9.560904466e-03f,
                                     -1.030489919e-03f, 8.028869343e-05f,  -4.346637070e-06f,
                                     1.535023273e-07f,  -3.155339101e-09f, 2.848823087e-11f};
  constexpr float kEnd = 4.3f;
  Lanes c[kVectors];
  Lanes square[kVectors];
  Lanes p[kVectors];
#pragma GCC unroll 6
  for (int v = 0; v < kVectors; ++v) {
    c[v] = Max(Min(x[v], Broadcast(kEnd)), Broadcast(-kEnd));
    square[v] = Mul(c[v], c[v]);
    p[v] = Broadcast(kCoefficients[8]);
  }
#pragma GCC unroll 8
  for (int i = 7; i >= 0; --i) {
    const Lanes coefficient = Broadcast(kCoefficients[i]);
#pragma GCC unroll 6
    for (int v = 0; v < kVectors; ++v) p[v] = Fma(p[v], square[v], coefficient);
  }
#pragma GCC unroll 6
  for (int v = 0; v < kVectors; ++v) x[v] = Mul(x[v], Fma(c[v], p[v], Broadcast(0.5f)));
}

#endif  // MODELSAT_CPU_KERNEL_MATH_H_
