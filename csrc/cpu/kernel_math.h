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

// x * Phi(x) = max(x, 0) - g(|x|) with g(a) = a * Phi(-a), which decays to 8e-7 at a = 5.125 and is
// held there. Absolute error below 1e-6: the minimax polynomial of degree 14 in 2 a / 5.125 - 1.
// Several vectors side by side, because one polynomial is a chain in which each step waits for the
// one before.
template <int kVectors>
inline __attribute__((always_inline)) void Gelu(Lanes (&x)[kVectors]) {
  constexpr float kCoefficients[] = {
      1.331537403e-02f,  -8.493752033e-02f, 2.242888957e-01f,  -2.761224806e-01f, 3.199600801e-02f,
      3.939865530e-01f,  -5.365297198e-01f, 1.597992778e-01f,  3.171792924e-01f,  -3.229835629e-01f,
      -2.153440006e-02f, 1.606018245e-01f,  -4.096066952e-02f, -3.034421802e-02f, 1.224561501e-02f};
  constexpr float kEnd = 5.125f;
  Lanes t[kVectors];
  Lanes g[kVectors];
#pragma GCC unroll 6
  for (int v = 0; v < kVectors; ++v) {
    t[v] = Fma(Min(Abs(x[v]), Broadcast(kEnd)), Broadcast(2.0f / kEnd), Broadcast(-1.0f));
    g[v] = Broadcast(kCoefficients[14]);
  }
#pragma GCC unroll 14
  for (int i = 13; i >= 0; --i) {
    const Lanes coefficient = Broadcast(kCoefficients[i]);
#pragma GCC unroll 6
    for (int v = 0; v < kVectors; ++v) g[v] = Fma(g[v], t[v], coefficient);
  }
#pragma GCC unroll 6
  for (int v = 0; v < kVectors; ++v) x[v] = Sub(Max(x[v], Zero()), g[v]);
}

#endif  // MODELSAT_CPU_KERNEL_MATH_H_
