@echo off
rem Double-click: sets blockrate up and opens the app in the browser. In a terminal: start.bat COMMAND ... as with start.py.
setlocal
chcp 65001 >nul
set "arguments=%*"
if "%~1"=="" set "arguments=ui"
if "%~1"=="" cd /d "%~dp0"

set "python=py -3"
%python% -c "import sys; sys.exit(sys.version_info < (3, 11))" >nul 2>nul
if not errorlevel 1 goto run
set "python=python"
%python% -c "import sys; sys.exit(sys.version_info < (3, 11))" >nul 2>nul
if not errorlevel 1 goto run
echo error: no Python 3.11 or newer was found. Install one from https://www.python.org/downloads and start this again.
set "code=1"
goto end

:run
%python% "%~dp0start.py" %arguments%
set "code=%errorlevel%"

:end
if "%~1"=="" pause
exit /b %code%
