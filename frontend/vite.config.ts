import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// Fixed names: the build is committed, and a diff should show what changed.
export default defineConfig({
  base: './',
  plugins: [react()],
  build: {
    outDir: '../src/lightkeep/portal/static/viewer',
    emptyOutDir: true,
    chunkSizeWarningLimit: 2000,
    rollupOptions: {
      output: {
        entryFileNames: 'viewer.js',
        chunkFileNames: 'viewer-[name].js',
        assetFileNames: 'viewer[extname]',
      },
    },
  },
});
