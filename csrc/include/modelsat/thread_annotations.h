// Clang thread-safety attributes, empty under other compilers.
// https://clang.llvm.org/docs/ThreadSafetyAnalysis.html

#ifndef MODELSAT_THREAD_ANNOTATIONS_H_
#define MODELSAT_THREAD_ANNOTATIONS_H_

#if defined(__clang__)
#define MODELSAT_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define MODELSAT_THREAD_ATTRIBUTE(x)
#endif

#define MODELSAT_CAPABILITY(x) MODELSAT_THREAD_ATTRIBUTE(capability(x))
#define MODELSAT_SCOPED_CAPABILITY MODELSAT_THREAD_ATTRIBUTE(scoped_lockable)
#define MODELSAT_GUARDED_BY(x) MODELSAT_THREAD_ATTRIBUTE(guarded_by(x))
#define MODELSAT_REQUIRES(...) MODELSAT_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define MODELSAT_EXCLUDES(...) MODELSAT_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define MODELSAT_ACQUIRE(...) MODELSAT_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define MODELSAT_RELEASE(...) MODELSAT_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
#define MODELSAT_NO_THREAD_SAFETY_ANALYSIS MODELSAT_THREAD_ATTRIBUTE(no_thread_safety_analysis)

#endif  // MODELSAT_THREAD_ANNOTATIONS_H_
