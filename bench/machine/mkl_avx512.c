/* What MKL asks before it chooses its kernels; see mkl.py. `make setup` compiles this. */
int mkl_serv_intel_cpu_true(void) { return 1; }
