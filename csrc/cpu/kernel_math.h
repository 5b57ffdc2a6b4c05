// Elementary functions over Lanes. Included once per instruction set, inside its namespace.

#ifndef MODELSAT_CPU_KERNEL_MATH_H_
#define MODELSAT_CPU_KERNEL_MATH_H_

// 2^x for x <= 0; 0 below -126. Relative error 2.2e-7: x = n + f with |f| <= 1/2, and the minimax
// polynomial of degree 5 for 2^f.
inline Lanes Exp2NonPositive(Lanes x) {
  const Lanes smallest = Broadcast(-126.0f);
  const Lanes clamped = Max(x, smallest);
  const Lanes n = Round(clamped);
  const Lanes f = Sub(clamped, n);
  Lanes y = Broadcast(1.327646663e-03f);
  y = Fma(y, f, Broadcast(9.675540961e-03f));
  y = Fma(y, f, Broadcast(5.550713465e-02f));
  y = Fma(y, f, Broadcast(2.402212024e-01f));
  y = Fma(y, f, Broadcast(6.931469440e-01f));
  y = Fma(y, f, Broadcast(1.000000119e+00f));
  return WhereAtLeast(x, smallest, Mul(y, PowerOfTwo(n)));
}

// x * Phi(x) = max(x, 0) - g(|x|) with g(a) = a * Phi(-a), which decays to 8e-7 at a = 5.125 and is
// held there. Absolute error below 1e-6: the minimax polynomial of degree 14 in 2 a / 5.125 - 1.
inline Lanes Gelu(Lanes x) {
  constexpr float kCoefficients[] = {
      1.331537403e-02f,  -8.493752033e-02f, 2.242888957e-01f,  -2.761224806e-01f, 3.199600801e-02f,
      3.939865530e-01f,  -5.365297198e-01f, 1.597992778e-01f,  3.171792924e-01f,  -3.229835629e-01f,
      -2.153440006e-02f, 1.606018245e-01f,  -4.096066952e-02f, -3.034421802e-02f, 1.224561501e-02f};
  constexpr float kEnd = 5.125f;
  const Lanes t = Fma(Min(Abs(x), Broadcast(kEnd)), Broadcast(2.0f / kEnd), Broadcast(-1.0f));
  Lanes g = Broadcast(kCoefficients[14]);
#pragma GCC unroll 14
  for (int i = 13; i >= 0; --i) g = Fma(g, t, Broadcast(kCoefficients[i]));
  return Sub(Max(x, Zero()), g);
}

#endif  // MODELSAT_CPU_KERNEL_MATH_H_
